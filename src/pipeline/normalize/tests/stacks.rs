//! What single stacks write that no recording of the tests has; each was seen of the stack, run against a scripted server.

use super::*;

/// An ended span of that name with these attributes, and the scope that made it.
fn told(scope: &str, name: &str, list: &[(&str, Value)]) -> StepFacts {
    let mut record = ended(list);
    record.span.name = name.to_owned();
    record.scope.name = scope.to_owned();
    facts(&record)
}

fn tokens(facts: &StepFacts) -> [Option<u64>; 5] {
    let tokens = facts.tokens.unwrap_or_default();
    [tokens.prompt, tokens.cache_read, tokens.cache_write, tokens.completion, tokens.reasoning]
}

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
fn smolagents_has_the_usage_in_what_python_prints_of_the_answer() {
    let answer = r#"{"role": "assistant", "raw": "ChatCompletion(id='c-0', choices=[Choice(index=0)], usage=CompletionUsage(completion_tokens=37, prompt_tokens=211, total_tokens=248, completion_tokens_details=CompletionTokensDetails(reasoning_tokens=16), prompt_tokens_details=PromptTokensDetails(cache_write_tokens=None, cached_tokens=64)))"}"#;
    let call = told(
        "openinference.instrumentation.smolagents",
        "OpenAIModel.generate",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.token_count.prompt", Value::Int(211)),
            ("llm.token_count.completion", Value::Int(37)),
            ("output.value", answer.into()),
        ],
    );
    assert_eq!(tokens(&call), [Some(211), Some(64), None, Some(37), Some(16)]);
}

#[test]
fn what_openinference_names_after_a_method_is_called_what_the_program_calls_it() {
    let agent = told(
        "openinference.instrumentation.smolagents",
        "weather_agent.run",
        &[("openinference.span.kind", "AGENT".into())],
    );
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather_agent")));
    let tool = told(
        "openinference.instrumentation.dspy",
        "get_weather.__call__",
        &[("openinference.span.kind", "TOOL".into())],
    );
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
}

#[test]
fn what_writes_a_request_and_what_hands_over_is_no_call() {
    let prepared = told(
        "openinference.instrumentation.llama_index",
        "OpenAI._prepare_chat_with_tools",
        &[("openinference.span.kind", "LLM".into())],
    );
    assert_eq!(prepared.kind, StepKind::Task);
    let handed = told(
        "openinference.instrumentation.openai_agents",
        "handoff to helper_agent",
        &[("openinference.span.kind", "TOOL".into())],
    );
    assert_eq!(handed.kind, StepKind::Task);
}

#[test]
fn openllmetry_says_of_llamaindex_what_a_call_is_beside_its_word_for_all() {
    let embedding = told(
        "opentelemetry.instrumentation.llamaindex",
        "OpenAIEmbedding.task",
        &[("traceloop.span.kind", "task".into()), ("gen_ai.operation.name", "embeddings".into())],
    );
    assert_eq!(embedding.kind, StepKind::Embedding);
    let tool = told(
        "opentelemetry.instrumentation.llamaindex",
        "FunctionTool.task",
        &[
            ("traceloop.span.kind", "task".into()),
            ("traceloop.entity.name", "FunctionTool.task".into()),
            ("traceloop.entity.output", r#"{"tool_name": "get_weather", "raw_output": "18 C"}"#.into()),
        ],
    );
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
}

#[test]
fn logfire_tells_of_the_openai_agents_sdk_by_templates() {
    let told = |template: &str, name: &str| {
        let list = [("logfire.msg_template", template.into()), ("name", name.into()), ("agent_name", "weather".into())];
        super::stacks::told("logfire.openai_agents", template, &list)
    };
    assert_eq!(told("OpenAI Agents trace: {name}", "trip").workflow_name.as_deref(), Some("trip"));
    assert_eq!(told("Agent run: {name!r}", "weather").kind, StepKind::Agent);
    let tool = told("Function: {name}", "get_weather");
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    assert_eq!(told("Turn {turn} for agent weather", "turn").kind, StepKind::Task);
    assert_eq!(told("Handoff: {from_agent} → {to_agent}", "").kind, StepKind::Task);
    // It writes every value as JSON.
    let response = r#"{"id": "resp-1", "output": [{"type": "message", "role": "assistant"}]}"#;
    let list =
        [("logfire.msg_template", "Responses API".into()), ("group_id", "null".into()), ("response", response.into())];
    let call = super::stacks::told("logfire.openai_agents", "Responses API", &list);
    assert_eq!((call.kind, call.session_id.as_deref()), (StepKind::Llm, None));
    assert!(call.content.output.is_some_and(|output| output.as_str().contains("assistant")));
}

#[test]
fn mlflow_names_a_tool_of_dspy_after_its_class_too() {
    let tool = told("mlflow.tracing.provider", "Tool.get_weather", &[("mlflow.spanType", "\"TOOL\"".into())]);
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
}

#[test]
fn thoughts_of_gemini_are_paid_for_where_only_the_total_or_another_count_has_them() {
    let call = |scope: &str, more: (&str, Value)| {
        told(
            scope,
            "chat gemini-2.5-flash",
            &[
                ("gen_ai.operation.name", "chat".into()),
                ("gen_ai.provider.name", "gcp.gemini".into()),
                ("gen_ai.usage.input_tokens", Value::Int(321)),
                ("gen_ai.usage.output_tokens", Value::Int(32)),
                ("gen_ai.usage.cache_read.input_tokens", Value::Int(97)),
                more,
            ],
        )
    };
    let by_total =
        call("opentelemetry.instrumentation.google_generativeai", ("gen_ai.usage.total_tokens", Value::Int(378)));
    let by_count = call("openlit.instrumentation.google_ai_studio", ("gen_ai.usage.reasoning_tokens", Value::Int(25)));
    for call in [by_total, by_count] {
        assert_eq!(tokens(&call), [Some(321), Some(97), None, Some(57), Some(25)]);
    }
    // LlamaIndex, by OpenInference, does not say whose the model is.
    let unnamed = told(
        "openinference.instrumentation.llama_index",
        "GoogleGenAI.chat",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.model_name", "gemini-2.5-flash".into()),
            ("llm.token_count.prompt", Value::Int(321)),
            ("llm.token_count.completion", Value::Int(32)),
            ("llm.token_count.total", Value::Int(378)),
        ],
    );
    assert_eq!(tokens(&unnamed), [Some(321), None, None, Some(57), Some(25)]);
    // Where output has them, the total says so.
    let whole = call("app", ("gen_ai.usage.total_tokens", Value::Int(353)));
    assert_eq!(tokens(&whole), [Some(321), Some(97), None, Some(32), None]);
}

#[test]
fn a_call_of_openlit_that_failed_has_a_name_alone() {
    let failed = told("openlit.instrumentation.anthropic", "chat claude-sonnet-4-5", &[]);
    assert_eq!(failed.kind, StepKind::Llm);
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
fn anthropics_client_tells_of_its_calls_and_of_what_is_none() {
    let told = |name: &str, more: &[(&str, Value)]| {
        let mut list = vec![
            ("gen_ai.provider.name", Value::from("anthropic")),
            ("gen_ai.request.model", "claude-sonnet-4-5".into()),
            ("http.request.method", "POST".into()),
        ];
        list.extend_from_slice(more);
        super::stacks::told("com.anthropic.sdk.python", name, &list)
    };
    let call = told(
        "anthropic.messages.create",
        &[
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.usage.input_tokens", Value::Int(211)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(64)),
            ("gen_ai.usage.cache_write.input_tokens", Value::Int(16)),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
            ("anthropic.message.stop_reason", "end_turn".into()),
        ],
    );
    assert_eq!((call.kind, call.is_at_wire), (StepKind::Llm, true));
    assert_eq!(tokens(&call), [Some(211), Some(64), Some(16), Some(37), None]);
    assert_eq!(call.finish_reasons, ["end_turn"]);
    assert_eq!(told("anthropic.messages.count_tokens", &[]).kind, StepKind::Task);
    let tool = told(
        "anthropic.custom_tool_use get_weather",
        &[("gen_ai.operation.name", "execute_tool".into()), ("gen_ai.tool.name", "get_weather".into())],
    );
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    // A stream has a reason for its end, or is none that was read to it.
    let stream = |more: &[(&str, Value)]| {
        let begun = [
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.request.stream", true.into()),
            ("gen_ai.response.id", "msg_1".into()),
            ("gen_ai.usage.input_tokens", Value::Int(211)),
        ];
        told("anthropic.messages.create", &[&begun, more].concat()).status
    };
    assert_eq!(stream(&[]), StepStatus::Cancelled);
    assert_eq!(stream(&[("anthropic.message.stop_reason", "end_turn".into())]), StepStatus::Success);
    assert_eq!(stream(&[("gen_ai.usage.output_tokens", Value::Int(37))]), StepStatus::Success);
    assert_eq!(stream(&[("error.type", "overloaded_error".into())]), StepStatus::Error);
    assert_eq!(told("anthropic.beta.sessions.create", &[("gen_ai.agent.name", "a".into())]).kind, StepKind::Task);
}

#[test]
fn a_call_without_a_prompt_is_one_whose_prompt_the_emitter_missed() {
    // LangChain's stream of Anthropic, by OpenInference.
    let call = told(
        "openinference.instrumentation.langchain",
        "ChatAnthropic",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.token_count.prompt", Value::Int(0)),
            ("llm.token_count.completion", Value::Int(37)),
            ("llm.token_count.total", Value::Int(37)),
        ],
    );
    assert_eq!(tokens(&call), [None, None, None, Some(37), None]);
    // All of it came from the cache, and was counted apart.
    let cached = told(
        "openlit.otel.tracing",
        "chat claude-sonnet-4-5",
        &[
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", "anthropic".into()),
            ("gen_ai.usage.input_tokens", Value::Int(0)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(64)),
            ("gen_ai.usage.output_tokens", Value::Int(0)),
        ],
    );
    assert_eq!(tokens(&cached), [Some(64), Some(64), None, Some(0), None]);
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
fn making_an_agent_is_no_run() {
    let made = told(
        "opentelemetry.instrumentation.langchain",
        "create_agent weather",
        &[("gen_ai.operation.name", "create_agent".into()), ("gen_ai.agent.name", "weather".into())],
    );
    assert_eq!((made.kind, made.is_genai), (StepKind::Task, false));
}

#[test]
fn adk_adds_reasoning_to_an_output_that_has_it_where_the_model_is_not_of_google() {
    let call = |provider: &str| {
        told(
            "gcp.vertex.agent",
            "generate_content",
            &[
                ("gen_ai.operation.name", "generate_content".into()),
                ("gen_ai.provider.name", provider.into()),
                ("gen_ai.usage.input_tokens", Value::Int(211)),
                ("gen_ai.usage.output_tokens", Value::Int(53)),
                ("gen_ai.usage.reasoning.output_tokens", Value::Int(16)),
            ],
        )
    };
    assert_eq!(tokens(&call("openai")), [Some(211), None, None, Some(37), Some(16)]);
    assert_eq!(tokens(&call("gcp.gemini")), [Some(211), None, None, Some(53), Some(16)]);
    // The same in the older way, where the total tells.
    let response = |total: u64| {
        let usage =
            format!(r#""candidates_token_count": 37, "thoughts_token_count": 16, "total_token_count": {total}"#);
        let response = format!(r#"{{"usage_metadata": {{"prompt_token_count": 211, {usage}}}}}"#);
        told("gcp.vertex.agent", "call_llm", &[("gcp.vertex.agent.llm_response", response.into())])
    };
    assert_eq!(tokens(&response(248)), [Some(211), None, None, Some(37), Some(16)]);
    assert_eq!(tokens(&response(264)), [Some(211), None, None, Some(53), Some(16)]);
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
fn vercels_sdk_counts_by_its_version_and_says_what_the_provider_reported() {
    let call = |provider: &str, counts: &[(&str, i64)], metadata: &str| {
        let mut list = vec![
            ("ai.operationId", Value::from("ai.generateText.doGenerate")),
            ("ai.model.provider", provider.into()),
            ("ai.response.providerMetadata", metadata.into()),
        ];
        list.extend(counts.iter().map(|(key, count)| (*key, Value::Int(*count))));
        tokens(&told("ai", "ai.generateText.doGenerate", &list))
    };
    let anthropic = r#"{"anthropic": {"usage": {"input_tokens": 131, "cache_creation_input_tokens": 16, "cache_read_input_tokens": 64, "output_tokens": 37}, "cacheCreationInputTokens": 16}}"#;
    let all = [Some(211), Some(64), Some(16), Some(37), None];
    // SDK 5 leaves cached tokens out, SDK 6 has them in.
    let five = [("ai.usage.promptTokens", 131), ("ai.usage.completionTokens", 37)];
    assert_eq!(call("anthropic.messages", &five, anthropic), all);
    let six = [
        ("ai.usage.inputTokens", 211),
        ("ai.usage.inputTokenDetails.cacheReadTokens", 64),
        ("ai.usage.inputTokenDetails.cacheWriteTokens", 16),
        ("ai.usage.outputTokens", 37),
    ];
    assert_eq!(call("anthropic.messages", &six, anthropic), all);
    // Of Bedrock there is what was written alone.
    let bedrock = r#"{"bedrock": {"usage": {"cacheWriteInputTokens": 16}}}"#;
    assert_eq!(call("amazon-bedrock", &six, bedrock), all);
    let five_cached =
        [("ai.usage.inputTokens", 131), ("ai.usage.cachedInputTokens", 64), ("ai.usage.outputTokens", 37)];
    assert_eq!(call("amazon-bedrock", &five_cached, bedrock), all);
    // SDK 4 has no object of Anthropic's own.
    let four = r#"{"anthropic": {"cacheCreationInputTokens": 16, "cacheReadInputTokens": 64}}"#;
    assert_eq!(call("anthropic.messages", &five, four), all);
    let openai = r#"{"openai": {"reasoningTokens": 16, "cachedPromptTokens": 64}}"#;
    let whole = [("ai.usage.promptTokens", 211), ("ai.usage.completionTokens", 37)];
    assert_eq!(call("openai.chat", &whole, openai), [Some(211), Some(64), None, Some(37), Some(16)]);
    let google = r#"{"google": {"usageMetadata": {"cachedContentTokenCount": 64, "thoughtsTokenCount": 16, "promptTokenCount": 211, "candidatesTokenCount": 21, "totalTokenCount": 248}}}"#;
    let without = [("ai.usage.promptTokens", 211), ("ai.usage.completionTokens", 21)];
    assert_eq!(call("google.generative-ai", &without, google), [Some(211), Some(64), None, Some(37), Some(16)]);
    // Where it only thought, the provider leaves out what it answered.
    let thought =
        r#"{"google": {"usageMetadata": {"thoughtsTokenCount": 37, "promptTokenCount": 211, "totalTokenCount": 248}}}"#;
    let (input, output) = (("ai.usage.inputTokens", 211), ("ai.usage.outputTokens", 37));
    let only_thought = [Some(211), None, None, Some(37), Some(37)];
    assert_eq!(call("google.generative-ai", &[input], thought), only_thought);
    assert_eq!(call("google.generative-ai", &[input, output], thought), only_thought);
}

/// A span of the AI SDK with that status, with an exception or without.
fn of_ai_sdk(scope: &str, list: &[(&str, Value)], status: (i32, &str), has_exception: bool) -> StepFacts {
    let mut record = ended(list);
    record.scope.name = scope.to_owned();
    record.span.status = Some(Status { code: status.0, message: status.1.to_owned() });
    if has_exception {
        let list = [("exception.type", "TypeError".into()), ("exception.message", status.1.into())];
        record.span.events = vec![event("exception", &list)];
    }
    facts(&record)
}

/// `@arizeai/openinference-vercel` 3.2.1 `TraceAggregateManager.ts`: with version 2 of OpenTelemetry's SDK every span that ends
/// after the first failure, else the root alone.
#[test]
fn a_failure_that_openinferences_exporter_hands_on_is_no_failure_of_the_step() {
    let legacy = [("ai.operationId", "ai.generateText".into()), ("openinference.span.kind", "AGENT".into())];
    let seven = [
        ("gen_ai.operation.name", "chat".into()),
        ("gen_ai.response.finish_reasons", "stop".into()),
        ("openinference.span.kind", "LLM".into()),
    ];
    let reason = (2, "no such city");
    for (scope, list) in [("ai", &legacy[..]), ("gen_ai", &seven[..])] {
        let own = of_ai_sdk(scope, list, reason, true);
        let error = own.error.and_then(|error| error.kind);
        assert_eq!((own.status, error.as_deref()), (StepStatus::Error, Some("TypeError")));
        let handed_on = of_ai_sdk(scope, list, reason, false);
        assert_eq!((handed_on.status, handed_on.error), (StepStatus::Success, None));
        // What is no error by its class has no exception, and no message either.
        assert_eq!(of_ai_sdk(scope, list, (2, ""), false).status, StepStatus::Error);
    }
    let ended_so = [legacy[0].clone(), ("ai.response.finishReason", "error".into())];
    assert_eq!(of_ai_sdk("ai", &ended_so, (2, "ai.response.finishReason=error"), false).status, StepStatus::Error);
    assert_eq!(of_ai_sdk("another", &seven, reason, false).status, StepStatus::Error);
    assert_eq!(of_ai_sdk("ai", &legacy[..1], reason, false).status, StepStatus::Error, "no exporter had to do with it");
}

/// `ai` 6.0.326 and 7.0.173, `@ai-sdk/otel` 1.0.173 `onAbort`.
#[test]
fn what_the_program_aborts_ends_without_a_word_by_the_ai_sdk() {
    let stream = ("ai.operationId", Value::from("ai.streamText"));
    let status = |scope: &str, list: &[(&str, Value)]| of_ai_sdk(scope, list, (0, ""), false).status;
    assert_eq!(status("ai", std::slice::from_ref(&stream)), StepStatus::Cancelled);
    assert_eq!(status("ai", &[stream, ("ai.response.finishReason", "stop".into())]), StepStatus::Success);
    // Version 7 ends the call within as well.
    assert_eq!(status("ai", &[("ai.operationId", "ai.streamText.doStream".into())]), StepStatus::Cancelled);
    for operation in ["invoke_agent", "chat"] {
        let list = [("gen_ai.operation.name", Value::from(operation))];
        assert_eq!(status("gen_ai", &list), StepStatus::Cancelled);
        // OpenInference's exporter says of every span without a failure that it is well.
        assert_eq!(of_ai_sdk("gen_ai", &list, (1, ""), false).status, StepStatus::Cancelled);
        let answered = [list[0].clone(), ("gen_ai.response.finish_reasons", "stop".into())];
        assert_eq!(status("gen_ai", &answered), StepStatus::Success);
    }
    assert_eq!(status("gen_ai", &[("gen_ai.operation.name", "agent_step".into())]), StepStatus::Success);
    assert_eq!(status("gen_ai", &[("gen_ai.operation.name", "execute_tool".into())]), StepStatus::Success);
}

/// `@ai-sdk/otel` 1.0.173 `supplemental-attributes.ts`.
#[test]
fn the_ai_sdk_7_says_more_where_the_program_asks_for_it() {
    let call = |more: &[(&str, Value)]| {
        let mut list = vec![
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.usage.input_tokens", Value::Int(211)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(64)),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
        ];
        list.extend_from_slice(more);
        told("gen_ai", "chat gemini-2.5-flash", &list)
    };
    let usage = call(&[
        ("gen_ai.provider.name", "openai".into()),
        ("ai.usage.outputTokenDetails.reasoningTokens", Value::Int(16)),
        ("ai.settings.context.sessionId", "s-1".into()),
        ("ai.settings.context.userId", "u-1".into()),
    ]);
    assert_eq!(tokens(&usage), [Some(211), Some(64), None, Some(37), Some(16)]);
    assert_eq!((usage.session_id.as_deref(), usage.user_id.as_deref()), (Some("s-1"), Some("u-1")));
    let google = r#"{"google": {"usageMetadata": {"cachedContentTokenCount": 64, "thoughtsTokenCount": 16, "promptTokenCount": 211,
        "candidatesTokenCount": 21, "totalTokenCount": 248}}}"#;
    let google =
        call(&[("gen_ai.provider.name", "gcp.gemini".into()), ("ai.response.providerMetadata", google.into())]);
    assert_eq!(tokens(&google), [Some(211), Some(64), None, Some(37), Some(16)]);
    let anthropic = r#"{"anthropic": {"usage": {"input_tokens": 131, "cache_creation_input_tokens": 16, "cache_read_input_tokens": 64,
        "output_tokens": 37}}}"#;
    let anthropic =
        call(&[("gen_ai.provider.name", "anthropic".into()), ("ai.response.providerMetadata", anthropic.into())]);
    assert_eq!(tokens(&anthropic), [Some(211), Some(64), Some(16), Some(37), None]);
}

#[test]
fn a_gateway_is_no_provider_and_openrouter_tells_what_the_sdk_leaves_out() {
    let call = |scope: &str, list: &[(&str, &str)]| {
        let list: Vec<(&str, Value)> = list.iter().map(|(key, value)| (*key, Value::from(*value))).collect();
        told(scope, "chat", &list)
    };
    let legacy = [
        ("ai.operationId", "ai.generateText.doGenerate"),
        ("ai.model.provider", "gateway"),
        ("ai.model.id", "anthropic/claude-sonnet-4.5"),
        ("gen_ai.system", "gateway"),
        ("gen_ai.request.model", "anthropic/claude-sonnet-4.5"),
    ];
    assert_eq!(call("ai", &legacy).provider.as_deref(), Some("anthropic"));
    // By an exporter that writes OpenInference's names beside.
    let beside = [&legacy[..], &[("openinference.span.kind", "LLM")]].concat();
    assert_eq!(call("ai", &beside).provider.as_deref(), Some("anthropic"));
    let seven = [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "gateway"),
        ("gen_ai.request.model", "google/gemini-2.5-pro"),
    ];
    assert_eq!(call("gen_ai", &seven).provider.as_deref(), Some("gcp.gen_ai"));
    assert_eq!(call("app", &seven).provider, None);
    let metadata = r#"{"openrouter": {"usage": {"promptTokens": 211, "promptTokensDetails": {"cachedTokens": 64}, "completionTokens": 37,
        "completionTokensDetails": {"reasoningTokens": 16}, "totalTokens": 248, "cost": 0.01}}}"#;
    let openrouter = [
        ("ai.operationId", "ai.generateText.doGenerate"),
        ("ai.model.provider", "openrouter"),
        ("ai.usage.inputTokens", "211"),
        ("ai.usage.outputTokens", "37"),
        ("ai.response.providerMetadata", metadata),
    ];
    assert_eq!(tokens(&call("ai", &openrouter)), [Some(211), Some(64), None, Some(37), Some(16)]);
}

#[test]
fn a_prompt_that_was_missed_is_told_by_the_total_and_else_unknown() {
    let call = |counts: &[(&str, i64)]| {
        let mut list = vec![("gen_ai.operation.name", "chat".into()), ("gen_ai.provider.name", "anthropic".into())];
        list.extend(counts.iter().map(|(key, count)| (*key, Value::Int(*count))));
        let [input, .., output, _] = tokens(&told("opentelemetry.instrumentation.any", "chat", &list));
        (input, output)
    };
    let (input, output, total) =
        ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.usage.total_tokens");
    assert_eq!(call(&[(input, 0), (output, 37), (total, 248)]), (Some(211), Some(37)));
    assert_eq!(call(&[(input, 0), (output, 37), (total, 37)]), (None, Some(37)));
    assert_eq!(call(&[(input, 0), (output, 0), (total, 0)]), (None, None));
}

#[test]
fn some_spans_of_codex_tell_of_a_turn_its_calls_and_its_tools() {
    let codex = |name: &str, list: &[(&str, Value)]| told("codex_exec", name, list);
    let thread = ("thread.id", Value::Int(4));
    let turn = codex(
        "session_task.turn",
        &[
            thread.clone(),
            ("model", "gpt-5-mini".into()),
            ("codex.turn.token_usage.input_tokens", "532".into()),
            ("codex.turn.token_usage.output_tokens", "94".into()),
        ],
    );
    // The number is that of a thread of the operating system.
    assert_eq!((turn.kind, turn.agent_name.as_deref(), turn.session_id), (StepKind::Agent, Some("codex"), None));
    let request = codex("try_run_sampling_request", &[("model", "gpt-5-mini".into())]);
    assert_eq!((request.kind, request.model(), request.tokens), (StepKind::Llm, Some("gpt-5-mini"), None));
    let answer = codex(
        "handle_responses",
        &[
            ("codex.request.reasoning_effort", "default".into()),
            ("gen_ai.usage.input_tokens", Value::Int(211)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(64)),
            ("gen_ai.usage.cache_write.input_tokens", Value::Int(0)),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
            ("codex.usage.reasoning_output_tokens", Value::Int(16)),
            ("codex.usage.total_tokens", Value::Int(248)),
        ],
    );
    assert_eq!((answer.kind, tokens(&answer)), (StepKind::Llm, [Some(211), Some(64), Some(0), Some(37), Some(16)]));
    // Others bear the name of the model or of the tool, and are neither.
    for name in ["handle_responses", "get_model_info", "exec_command"] {
        let other = codex(name, &[("model", "gpt-5-mini".into()), ("tool_name", "exec_command".into())]);
        assert_eq!((other.kind, other.is_genai, other.billed), (StepKind::Task, false, false));
    }
    let whole = codex("run_turn", &[thread, ("conversation.id", "c-1".into())]);
    assert_eq!((whole.is_genai, whole.session_id.as_deref()), (false, Some("c-1")));

    // The event is in the span, and with its content in a log.
    let result = |name: &str, more: &[(&str, Value)]| {
        let list = [
            ("event.name", "codex.tool_result".into()),
            ("tool_name", "view_image".into()),
            ("call_id", "call_1".into()),
            ("success", "false".into()),
        ];
        event(name, &[&list, more].concat())
    };
    let mut tool = ended(&[]);
    tool.span.name = "dispatch_tool_call_with_state".to_owned();
    tool.scope.name = "codex_exec".to_owned();
    let content = [("arguments", r#"{"path":"."}"#.into()), ("output", "is not a file".into())];
    tool.span.events = vec![result("event otel/src/tool_result.rs:54", &[]), result("codex.tool_result", &content)];
    let facts = facts(&tool);
    assert_eq!(
        (facts.kind, facts.tool_name.as_deref(), facts.tool_call_id.as_deref(), facts.status),
        (StepKind::Tool, Some("view_image"), Some("call_1"), StepStatus::Error)
    );
    assert_eq!(facts.error.unwrap().message.as_deref(), Some("is not a file"));
    assert_eq!(facts.content.input, Some(serde_json::json!({"path": "."}).into()));
}

#[test]
fn claude_code_tells_what_a_tool_gave_back_in_an_event_and_the_answer_in_a_log() {
    let mut tool = ended(&[
        ("span.type", "tool".into()),
        ("tool_name", "Bash".into()),
        ("full_command", "echo 18 degrees".into()),
    ]);
    let scope = "com.anthropic.claude_code.tracing";
    tool.scope.name = scope.to_owned();
    tool.span.events = vec![event("tool.output", &[("output", "18 degrees".into())])];
    let tool = facts(&tool);
    assert_eq!(tool.content.input, Some(serde_json::json!("echo 18 degrees").into()));
    assert_eq!(tool.content.output, Some(serde_json::json!("18 degrees").into()));
    let mut turn = ended(&[("span.type", "interaction".into()), ("user_prompt", "weather?".into())]);
    turn.scope.name = scope.to_owned();
    let answer = [("event.name", "assistant_response".into()), ("response", "It is sunny.".into())];
    turn.span.events = vec![event("claude_code.assistant_response", &answer)];
    assert_eq!(facts(&turn).content.output, Some(serde_json::json!("It is sunny.").into()));
}

#[test]
fn thoughts_are_part_of_what_qwen_code_counts_and_no_part_of_what_gemini_cli_does() {
    let call = |event: &str, output: i64| {
        let list = [
            ("event.name", event.into()),
            ("gen_ai.operation.name", "chat".into()),
            ("model", "m".into()),
            ("input_token_count", Value::Int(211)),
            ("output_token_count", Value::Int(output)),
            ("cached_content_token_count", Value::Int(64)),
            ("thoughts_token_count", Value::Int(16)),
            ("total_token_count", Value::Int(248)),
        ];
        tokens(&told("any", event, &list))
    };
    let all = [Some(211), Some(64), None, Some(37), Some(16)];
    assert_eq!(call("qwen-code.api_response", 37), all);
    assert_eq!(call("gemini_cli.api_response", 21), all);
}

#[test]
fn mastra_has_what_went_in_and_out_under_names_of_its_own() {
    let agent = told(
        "@mastra/otel-exporter",
        "invoke_agent weather",
        &[
            ("mastra.span.type", "agent_run".into()),
            ("gen_ai.operation.name", "invoke_agent".into()),
            ("gen_ai.agent.name", "weather".into()),
            ("mastra.metadata.resourceId", "u-1".into()),
            ("mastra.agent_run.input", "weather?".into()),
            ("mastra.agent_run.output", r#"{"text":"sunny"}"#.into()),
        ],
    );
    assert_eq!((agent.kind, agent.user_id.as_deref()), (StepKind::Agent, Some("u-1")));
    assert_eq!(agent.content.input, Some(serde_json::json!("weather?").into()));
    assert_eq!(agent.content.output, Some(serde_json::json!({"text": "sunny"}).into()));
    let whole = told(
        "@mastra/otel-exporter",
        "model_generation gpt-5-mini",
        &[("mastra.span.type", "model_generation".into()), ("gen_ai.operation.name", "model_generation".into())],
    );
    assert_eq!(whole.kind, StepKind::Task);
}

/// `@mastra/otel-exporter` 1.4 with `@mastra/core` 1.71: its status is OK, and only the agent's is an error.
#[test]
fn a_call_that_ends_by_an_error_has_failed_by_mastra_and_the_ai_sdk() {
    let mastra = |span_type: &str, list: &[(&str, Value)]| {
        let list = [&[("mastra.span.type", Value::from(span_type))], list].concat();
        of_ai_sdk("@mastra/otel-exporter", &list, (1, ""), false)
    };
    let chat = ("gen_ai.operation.name", Value::from("chat"));
    let ended_by =
        |reason: &str| mastra("model_inference", &[chat.clone(), ("gen_ai.response.finish_reasons", reason.into())]);
    assert_eq!(ended_by(r#"["error"]"#).status, StepStatus::Error);
    assert_eq!(ended_by(r#"["stop"]"#).status, StepStatus::Success);
    let legacy = [("ai.operationId", "ai.streamText.doStream".into()), ("ai.response.finishReason", "error".into())];
    assert_eq!(of_ai_sdk("ai", &legacy, (0, ""), false).status, StepStatus::Error);
    let reasons = Value::Array(ArrayValue { values: vec![Value::from("error").into()] });
    let seven = [chat, ("gen_ai.response.finish_reasons", reasons)];
    assert_eq!(of_ai_sdk("gen_ai", &seven, (0, ""), false).status, StepStatus::Error);
    let workflow = told(
        "@mastra/otel-exporter",
        "invoke_workflow flow",
        &[("mastra.span.type", "workflow_run".into()), ("gen_ai.operation.name", "invoke_workflow".into())],
    );
    assert_eq!((workflow.kind, workflow.workflow_name.as_deref()), (StepKind::Workflow, Some("flow")));
}

#[test]
fn pieces_of_a_generation_are_no_calls_by_mastras_exporter_for_arize() {
    let told = |span_type: &str, kind: &str| {
        let list = [
            ("openinference.span.kind", kind.into()),
            ("mastra.span.type", span_type.into()),
            ("metadata", r#"{"runId": "r-1", "resourceId": "u-1"}"#.into()),
        ];
        super::stacks::told("@mastra/otel-exporter", "any", &list)
    };
    let kinds = |list: &[(&str, &str)]| list.iter().map(|(span, kind)| told(span, kind).kind).collect::<Vec<_>>();
    let calls =
        [("model_generation", "LLM"), ("model_step", "LLM"), ("model_chunk", "LLM"), ("model_inference", "CHAIN")];
    assert_eq!(kinds(&calls), [StepKind::Llm, StepKind::Task, StepKind::Task, StepKind::Task]);
    let others = [("agent_run", "AGENT"), ("tool_call", "TOOL"), ("workflow_run", "CHAIN")];
    assert_eq!(kinds(&others), [StepKind::Agent, StepKind::Tool, StepKind::Workflow]);
    assert_eq!(told("agent_run", "AGENT").user_id.as_deref(), Some("u-1"));
}

#[test]
fn the_name_of_an_api_is_no_part_of_the_providers() {
    for (word, provider) in [
        ("openai.responses", "openai"),
        ("azure.chat", "azure.ai.openai"),
        ("togetherai.chat", "togetherai"),
        ("azure.ai.openai", "azure.ai.openai"),
        ("vertex.anthropic.messages", "gcp.vertex_ai"),
    ] {
        let call = told("any", "chat", &[("gen_ai.provider.name", word.into())]);
        assert_eq!(call.provider.as_deref(), Some(provider));
    }
}

#[test]
fn a_turn_of_the_openai_agents_sdk_is_no_agent_by_openlit() {
    let scope = "@openlit/instrumentation-openai-agents";
    let span = |name: &str, list: &[(&str, Value)]| {
        let list =
            [&[("gen_ai.operation.name", "invoke_agent".into()), ("telemetry.sdk.name", "openlit".into())], list];
        told(scope, name, &list.concat()).kind
    };
    assert_eq!(span("invoke_agent", &[]), StepKind::Task);
    assert_eq!(span("invoke_agent weather", &[("gen_ai.agent.name", "weather".into())]), StepKind::Agent);
}

#[test]
fn voltagents_agents_bear_what_all_their_calls_used_and_its_calls_the_last_of_it() {
    let told = |list: &[(&str, Value)]| {
        let list = [&[("entity.type", "agent".into()), ("entity.name", "weather".into())], list].concat();
        super::stacks::told("@voltagent/core", "any", &list)
    };
    let agent = told(&[
        ("usage.prompt_tokens", Value::Int(532)),
        ("usage.completion_tokens", Value::Int(94)),
        ("usage.cached_tokens", Value::Int(161)),
        ("usage.reasoning_tokens", Value::Int(41)),
        ("conversation.id", "c-1".into()),
    ]);
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather")));
    assert_eq!(
        (tokens(&agent), agent.session_id.as_deref()),
        ([Some(532), Some(161), None, Some(94), Some(41)], Some("c-1"))
    );
    let last = [("llm.usage.prompt_tokens", Value::Int(321)), ("llm.usage.total_tokens", Value::Int(378))];
    let call = told(&[&[("span.type", "llm".into()), ("llm.model", "gpt-4o-mini".into())], &last[..]].concat());
    assert_eq!((call.kind, call.model(), call.tokens), (StepKind::Llm, Some("gpt-4o-mini"), None));
    let tool = told(&[("span.type", "tool".into()), ("tool.name", "get_weather".into()), ("output", "18 C".into())]);
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    assert_eq!(told(&[("span.type", "memory".into())]).kind, StepKind::Task);
}

#[test]
fn bedrock_counts_cached_tokens_apart_and_so_do_the_instrumentations_of_its_client() {
    let call = |scope: &str, more: &[(&str, Value)]| {
        let mut list = vec![
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.usage.input_tokens", Value::Int(131)),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(64)),
            ("gen_ai.usage.cache_creation.input_tokens", Value::Int(16)),
        ];
        list.extend_from_slice(more);
        told(scope, "chat", &list)
    };
    let all = [Some(211), Some(64), Some(16), Some(37), None];
    let own = call(
        "opentelemetry.instrumentation.botocore.bedrock-runtime",
        &[("gen_ai.system", "aws.bedrock".into()), ("rpc.system", "aws-api".into())],
    );
    assert_eq!((own.kind, tokens(&own)), (StepKind::Llm, all));
    let openllmetry = call(
        "opentelemetry.instrumentation.bedrock",
        &[("gen_ai.provider.name", "aws.bedrock".into()), ("gen_ai.usage.total_tokens", Value::Int(168))],
    );
    assert_eq!((openllmetry.kind, tokens(&openllmetry)), (StepKind::Llm, all));
    // LangChain has counted them in.
    let langchain = told(
        "opentelemetry.instrumentation.langchain",
        "ChatBedrockConverse.chat",
        &[
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", "aws.bedrock".into()),
            ("gen_ai.usage.input_tokens", Value::Int(211)),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(64)),
            ("gen_ai.usage.cache_creation.input_tokens", Value::Int(16)),
        ],
    );
    assert_eq!(tokens(&langchain), all);
}

#[test]
fn an_embedding_of_bedrock_is_one_whatever_the_operation_says() {
    for (scope, model) in [
        ("opentelemetry.instrumentation.botocore.bedrock-runtime", "amazon.titan-embed-text-v2:0"),
        ("opentelemetry.instrumentation.bedrock", "titan-embed-text-v2:0"),
        ("opentelemetry.instrumentation.botocore.bedrock-runtime", "us.cohere.embed-v4:0"),
    ] {
        let list = [
            ("gen_ai.operation.name", "text_completion".into()),
            ("gen_ai.request.model", model.into()),
            ("gen_ai.usage.input_tokens", Value::Int(9)),
        ];
        let embedding = told(scope, "text_completion", &list);
        assert_eq!((embedding.kind, tokens(&embedding)[0]), (StepKind::Embedding, Some(9)), "{model}");
    }
}

#[test]
fn openinference_passes_on_what_the_provider_answered_where_its_own_names_have_less() {
    // Bedrock's stream of Anthropic.
    let answer = r#"{"usage": {"input_tokens": 131, "output_tokens": 37, "cache_creation_input_tokens": 16, "cache_read_input_tokens": 64}}"#;
    let call = told(
        "openinference.instrumentation.bedrock",
        "bedrock.invoke_model_with_response_stream",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.token_count.prompt", Value::Int(211)),
            ("llm.token_count.completion", Value::Int(37)),
            ("output.value", answer.into()),
        ],
    );
    assert_eq!(tokens(&call), [Some(211), Some(64), Some(16), Some(37), None]);
    // Haystack.
    let answer = r#"{"replies": ["ChatMessage(_role=<ChatRole.ASSISTANT: 'assistant'>, _content=[TextContent(text='18 C')], _name=None, _meta={'model': 'gpt-4o-mini', 'usage': {'completion_tokens': 57, 'prompt_tokens': 321, 'total_tokens': 378, 'completion_tokens_details': {'reasoning_tokens': 25, 'text_tokens': None}, 'prompt_tokens_details': {'cached_tokens': 97}}})"]}"#;
    let list = [("openinference.span.kind", "LLM".into()), ("output.value", answer.into())];
    let call = told("openinference.instrumentation.haystack", "OpenAIChatGenerator.run", &list);
    assert_eq!(tokens(&call), [Some(321), Some(97), None, Some(57), Some(25)]);
    let vectors =
        r#"{"embedding": "<8-dimensional vector>", "meta": {"usage": {"prompt_tokens": 9, "total_tokens": 9}}}"#;
    let list = [("openinference.span.kind", "EMBEDDING".into()), ("output.value", vectors.into())];
    let embedding = told("openinference.instrumentation.haystack", "CreateEmbeddings", &list);
    assert_eq!((embedding.kind, tokens(&embedding)[0]), (StepKind::Embedding, Some(9)));
}

#[test]
fn the_total_says_whether_haystack_has_renamed_what_bedrock_reports() {
    let call = |usage: &str| {
        let output = format!(r#"{{"replies": [{{"role": "assistant", "meta": {{"usage": {usage}}}}}]}}"#);
        let list = [
            ("haystack.component.type", "AmazonBedrockChatGenerator".into()),
            ("haystack.component.output", output.into()),
        ];
        tokens(&told("haystack", "haystack.component.run", &list))
    };
    let all = [Some(211), Some(64), Some(16), Some(37), None];
    let renamed = r#"{"prompt_tokens": 131, "completion_tokens": 37, "total_tokens": 248, "cache_read_input_tokens": 64, "cache_write_input_tokens": 16}"#;
    assert_eq!(call(renamed), all);
    // Anthropic's has counted them in, since 5.17.
    let summed = r#"{"prompt_tokens": 211, "completion_tokens": 37, "cache_read_input_tokens": 64, "cache_creation_input_tokens": 16}"#;
    assert_eq!(call(summed), all);
}

#[test]
fn openinference_counts_of_bedrock_what_it_reports_in_javascript_and_of_nova() {
    let call = |scope: &str, name: &str, model: &str, prompt: i64| {
        let list = [
            ("openinference.span.kind", "LLM".into()),
            ("llm.provider", "aws".into()),
            ("llm.model_name", model.into()),
            ("llm.token_count.prompt", Value::Int(prompt)),
            ("llm.token_count.completion", Value::Int(37)),
            ("llm.token_count.total", Value::Int(prompt + 37)),
            ("llm.token_count.prompt_details.cache_read", Value::Int(64)),
            ("llm.token_count.prompt_details.cache_write", Value::Int(16)),
        ];
        tokens(&told(scope, name, &list))
    };
    let all = [Some(211), Some(64), Some(16), Some(37), None];
    let (python, javascript) =
        ("openinference.instrumentation.bedrock", "@arizeai/openinference-instrumentation-bedrock");
    let (nova, claude) = ("us.amazon.nova-lite-v1:0", "anthropic.claude-sonnet-4-5-20250929-v1:0");
    assert_eq!(call(python, "bedrock.invoke_model", nova, 131), all);
    assert_eq!(call(python, "bedrock.invoke_model_with_response_stream", nova, 131), all);
    assert_eq!(call(python, "bedrock.converse", nova, 211), all);
    assert_eq!(call(python, "bedrock.invoke_model", claude, 211), all);
    assert_eq!(call(javascript, "bedrock.invoke_model", claude, 131), all);
    assert_eq!(call(javascript, "bedrock.converse", nova, 131), all);
}

#[test]
fn what_encloses_the_agents_of_openais_sdk_is_none_of_them() {
    let told = |name: &str, kind: &str, more: &[(&str, Value)]| {
        let mut list = vec![("openinference.span.kind", Value::from(kind))];
        list.extend_from_slice(more);
        super::stacks::told("openinference.instrumentation.openai_agents", name, &list)
    };
    let trace = told("Agent workflow", "AGENT", &[]);
    assert_eq!((trace.kind, trace.workflow_name.as_deref()), (StepKind::Workflow, Some("Agent workflow")));
    assert_eq!(told("Agent workflow", "CHAIN", &[]).kind, StepKind::Task);
    let agent = told("weather", "AGENT", &[("graph.node.id", "weather".into())]);
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather")));
}

#[test]
fn openais_agents_are_told_in_javascript_as_in_python() {
    let told = |name: &str, kind: &str, more: &[(&str, Value)]| {
        let mut list = vec![("openinference.span.kind", Value::from(kind))];
        list.extend_from_slice(more);
        super::stacks::told("@arizeai/openinference-instrumentation-openai-agents", name, &list)
    };
    let trace = told("Weather flow", "AGENT", &[]);
    assert_eq!((trace.kind, trace.workflow_name.as_deref()), (StepKind::Workflow, Some("Weather flow")));
    let agent = told("weather", "AGENT", &[("graph.node.id", "weather".into())]);
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather")));
    assert_eq!(told("handoff to weather", "TOOL", &[("tool.name", "handoff to weather".into())]).kind, StepKind::Task);
    let answer = r#"[{"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18"}]"#;
    let call = told("generation", "LLM", &[("llm.model_name", "gpt-4o-mini".into()), ("output.value", answer.into())]);
    assert_eq!((call.kind, call.model()), (StepKind::Llm, Some("gpt-4o-mini-2024-07-18")));
}

#[test]
fn a_crew_is_a_workflow_and_a_method_of_a_flow_no_agent() {
    let crew = told(
        "opentelemetry.instrumentation.crewai.instrumentation",
        "crewai.workflow",
        &[
            ("gen_ai.operation.name", "invoke_agent".into()),
            ("crewai.crew.id", "1".into()),
            ("crewai.crew.name", "trip".into()),
            ("crewai.crew.result", "18 C".into()),
        ],
    );
    assert_eq!((crew.kind, crew.workflow_name.as_deref()), (StepKind::Workflow, Some("trip")));
    assert_eq!(crew.content.output, Some(crate::model::json_text::JsonText::of(&"18 C".into())));
    let openlit = |more: &[(&str, Value)]| {
        let mut list = vec![("gen_ai.operation.name", "invoke_agent".into())];
        list.extend_from_slice(more);
        told("openlit.instrumentation.crewai", "invoke_agent", &list).kind
    };
    assert_eq!(openlit(&[]), StepKind::Task);
    assert_eq!(openlit(&[("gen_ai.agent.name", "weather".into())]), StepKind::Agent);
}

#[test]
fn a_framework_is_no_provider() {
    for word in ["langgraph", "crewai", "ag2", "llama_index", "microsoft.agent_framework", "None", "unknown"] {
        let step = told("openlit", "step", &[("gen_ai.provider.name", word.into())]);
        assert_eq!(step.provider, None, "{word}");
    }
    // Nor is a region of Bedrock, which stands before the model's name.
    let call = told(
        "mlflow.tracing.provider",
        "BedrockRuntime.converse",
        &[("mlflow.spanType", "\"LLM\"".into()), ("mlflow.llm.provider", "\"us\"".into())],
    );
    assert_eq!(call.provider.as_deref(), Some("aws.bedrock"));
    let call = told("langsmith", "ChatBedrock", &[("gen_ai.system", "amazon_bedrock".into())]);
    assert_eq!(call.provider.as_deref(), Some("aws.bedrock"));
    let call = told("genkit-tracer", "generate", &[("genkit:key", "/model/googleai/gemini-2.5-flash".into())]);
    assert_eq!(call.provider.as_deref(), Some("gcp.gemini"));
}

#[test]
fn agno_has_what_the_provider_reported() {
    let call = |provider: &str| {
        let list = [
            ("openinference.span.kind", "LLM".into()),
            ("llm.provider", provider.into()),
            ("llm.token_count.prompt", Value::Int(131)),
            ("llm.token_count.completion", Value::Int(37)),
            ("llm.token_count.prompt_details.cache_read", Value::Int(64)),
            ("llm.token_count.prompt_details.cache_write", Value::Int(16)),
        ];
        tokens(&told("openinference.instrumentation.agno", "Claude.invoke", &list))
    };
    assert_eq!(call("Anthropic"), [Some(211), Some(64), Some(16), Some(37), None]);
    assert_eq!(call("AwsBedrock"), [Some(211), Some(64), Some(16), Some(37), None]);
    assert_eq!(call("OpenAI"), [Some(131), Some(64), Some(16), Some(37), None]);
}

#[test]
fn a_message_that_was_logged_as_text_is_one() {
    // Semantic Kernel, by the handler of Python's own logs.
    let mut record = ended(&[("gen_ai.operation.name", "chat".into())]);
    let logged = |name: &str, body: &str| event(name, &[("body", body.into())]);
    record.span.events = vec![
        logged("gen_ai.user.message", r#"{"role": "user", "content": "weather?"}"#),
        logged("gen_ai.choice", r#"{"message": {"role": "assistant", "content": "18 C"}, "finish_reason": "stop"}"#),
    ];
    let content = facts(&record).content;
    let text = |side: &Option<crate::model::json_text::JsonText>| side.as_ref().map(|text| text.as_str().to_owned());
    insta::assert_snapshot!(text(&content.input).unwrap_or_default(), @r#"[{"role":"user","parts":[{"type":"text","content":"weather?"}]}]"#);
    insta::assert_snapshot!(text(&content.output).unwrap_or_default(), @r#"[{"role":"assistant","parts":[{"type":"text","content":"18 C"}],"finish_reason":"stop"}]"#);
}

#[test]
fn llamaindex_names_its_agent_in_what_goes_from_step_to_step() {
    let input =
        r#"{"ev": "AgentSetup(input=[ChatMessage(role=<MessageRole.USER: 'user'>)], current_agent_name='weather')"}"#;
    let list = [("openinference.span.kind", "CHAIN".into()), ("input.value", input.into())];
    let step = told("openinference.instrumentation.llama_index", "BaseWorkflowAgent.run_agent_step", &list);
    assert_eq!((step.kind, step.agent_name.as_deref()), (StepKind::Task, Some("weather")));
    let output = r#"{"input": [], "current_agent_name": "weather"}"#;
    let list = [("traceloop.span.kind", "task".into()), ("traceloop.entity.output", output.into())];
    let step = told("opentelemetry.instrumentation.llamaindex", "BaseWorkflowAgent.task", &list);
    assert_eq!((step.kind, step.agent_name.as_deref()), (StepKind::Task, Some("weather")));
}

#[test]
fn agentops_and_langwatch_say_what_a_step_is() {
    let agentops = |kind: &str| {
        let list = [
            ("agentops.span.kind", Value::from(kind)),
            ("operation.name", "weather".into()),
            ("agentops.tool.output", "18 C".into()),
        ];
        told("agentops", &format!("weather.{kind}"), &list)
    };
    assert_eq!(agentops("session").workflow_name.as_deref(), Some("weather"));
    assert_eq!(agentops("agent").agent_name.as_deref(), Some("weather"));
    assert_eq!(agentops("operation").kind, StepKind::Task);
    let tool = agentops("tool");
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("weather")));
    assert!(tool.content.output.is_some());
    let usage = r#"{"type": "json", "value": {"promptTokens": 211, "completionTokens": 37}}"#;
    let list = [
        ("langwatch.span.type", "llm".into()),
        ("langwatch.thread.id", "s-1".into()),
        ("langwatch.input", r#"{"type": "text", "value": "hi"}"#.into()),
        ("langwatch.metrics", usage.into()),
    ];
    let call = told("langwatch", "call", &list);
    assert_eq!((call.kind, call.session_id.as_deref()), (StepKind::Llm, Some("s-1")));
    assert_eq!(tokens(&call), [Some(211), None, None, Some(37), None]);
}

#[test]
fn beeai_has_cached_tokens_among_its_metadata_by_openinference() {
    let call = told(
        "openinference.instrumentation.beeai",
        "AnthropicChatModel",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.token_count.prompt", Value::Int(211)),
            ("llm.token_count.completion", Value::Int(37)),
            ("metadata.usage.cached_prompt_tokens", Value::Int(64)),
            ("metadata.usage.cached_creation_tokens", Value::Int(16)),
        ],
    );
    assert_eq!(tokens(&call), [Some(211), Some(64), Some(16), Some(37), None]);
}

#[test]
fn openinference_says_in_the_request_of_which_model_a_call_was_that_failed() {
    let list = [
        ("openinference.span.kind", "LLM".into()),
        ("llm.invocation_parameters", r#"{"model": "gpt-4o-mini", "stream": false}"#.into()),
    ];
    let call = told("openinference.instrumentation.openai", "ChatCompletion", &list);
    assert_eq!((call.request_model.as_deref(), call.response_model), (Some("gpt-4o-mini"), None));
    // One that was answered has the model that did, in the place of the one asked for: who asks again asks for that.
    let answered = [&list[..], &[("llm.model_name", "gpt-4o-mini-2024-07-18".into())]].concat();
    let call = told("openinference.instrumentation.openai", "ChatCompletion", &answered);
    let models = (call.request_model.as_deref(), call.response_model.as_deref());
    assert_eq!(models, (Some("gpt-4o-mini"), Some("gpt-4o-mini-2024-07-18")));
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
fn mlflow_has_the_agent_of_pydantic_ai_and_its_counts_as_the_framework_writes_them() {
    let agent =
        told("", "Agent.run_sync", &[("mlflow.spanType", r#""AGENT""#.into()), ("name", r#""weather_agent""#.into())]);
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather_agent")));
    let answer = r#"{"parts": [], "usage": {"input_tokens": 211, "cache_write_tokens": 16, "cache_read_tokens": 64, "output_tokens": 37, "details": {"reasoning_tokens": 16}}, "model_name": "gpt-4o-mini-2024-07-18", "provider_response_id": "chatcmpl-0"}"#;
    let list = [("mlflow.spanType", r#""LLM""#.into()), ("mlflow.spanOutputs", answer.into())];
    let call = told("", "OpenAIChatModel.request", &list);
    assert_eq!(tokens(&call), [Some(211), Some(64), Some(16), Some(37), Some(16)]);
    let answered = (call.response_model.as_deref(), call.response_id.as_deref());
    assert_eq!(answered, (Some("gpt-4o-mini-2024-07-18"), Some("chatcmpl-0")));
}

#[test]
fn mlflow_says_of_what_is_around_the_agents_of_openais_sdk_that_it_is_one() {
    let list = [("mlflow.spanType", r#""AGENT""#.into()), ("mlflow.openai.agent_run_root", "true".into())];
    let root = told("", "AgentRunner.run", &list);
    assert_eq!((root.kind, root.agent_name.as_deref()), (StepKind::Workflow, None));
    let agent = told("", "weather_agent", &[("mlflow.spanType", r#""AGENT""#.into())]);
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather_agent")));
}

#[test]
fn an_event_of_beeai_is_not_another_step_of_the_kind_it_happens_in() {
    let agent = [("openinference.span.kind", "AGENT".into()), ("metadata.class_name", "RequirementAgent".into())];
    assert_eq!(told("openinference.instrumentation.beeai", "weather_agent", &agent).kind, StepKind::Agent);
    let event = |kind: &str, name: &str, path: &str| {
        let list = [("openinference.span.kind", Value::from(kind)), ("metadata.path", path.into())];
        told("openinference.instrumentation.beeai", name, &list).kind
    };
    assert_eq!(event("AGENT", "final_answer", "agent.requirement.final_answer"), StepKind::Task);
    assert_eq!(event("LLM", "new_token", "backend.openai.chat.new_token"), StepKind::Task);
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
fn openllmetry_counts_of_anthropic_in_javascript_what_the_provider_reports() {
    let call = told(
        "@traceloop/instrumentation-anthropic",
        "chat claude-sonnet-4-5",
        &[
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", "anthropic".into()),
            ("gen_ai.usage.input_tokens", Value::Int(131)),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
            ("gen_ai.usage.total_tokens", Value::Int(168)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(64)),
            ("gen_ai.usage.cache_creation.input_tokens", Value::Int(16)),
        ],
    );
    assert_eq!(tokens(&call), [Some(211), Some(64), Some(16), Some(37), None]);
}

#[test]
fn openinference_has_the_provider_of_langchain_in_javascript_in_the_metadata_alone() {
    let list = [("openinference.span.kind", "LLM".into()), ("metadata", r#"{"ls_provider": "openai"}"#.into())];
    let call = told("@arizeai/openinference-instrumentation-langchain", "ChatOpenAI", &list);
    assert_eq!(call.provider.as_deref(), Some("openai"));
}

#[test]
fn mistrals_client_tells_by_silence_of_a_request_that_failed() {
    let client = |name: &str, status: i32, list: &[(&str, Value)]| {
        let mut list = list.to_vec();
        list.extend([("http.request.method", "POST".into()), ("gen_ai.request.model", "mistral-large-latest".into())]);
        let mut record = ended(&list);
        (record.span.name, record.scope.name) = (name.to_owned(), "mistralai_sdk_tracer".to_owned());
        record.span.status = Some(Status { code: status, message: String::new() });
        facts(&record)
    };
    // 3.7.
    let chat = [("gen_ai.operation.name", "chat".into()), ("gen_ai.provider.name", "mistral_ai".into())];
    let failed = client("chat mistral-large-latest", 0, &chat);
    assert_eq!((failed.kind, failed.status), (StepKind::Llm, StepStatus::Error));
    // A stream that was answered, and that nobody read.
    assert_eq!(client("chat mistral-large-latest", 1, &chat).status, StepStatus::Success);
    // 1.12 has no operations, of a failed request no provider, and of a stream nothing else either.
    let failed = client("chat_completion_v1_chat_completions_post", 0, &[]);
    assert_eq!((failed.kind, failed.status), (StepKind::Llm, StepStatus::Error));
    assert_eq!(failed.provider.as_deref(), Some("mistral_ai"));
    assert_eq!(client("stream_chat", 0, &[]).status, StepStatus::Success);
    let used = [("gen_ai.usage.prompt_tokens", Value::Int(9)), ("gen_ai.usage.output_tokens", Value::Int(0))];
    let embedding = client("embeddings_v1_embeddings_post", 1, &used);
    assert_eq!((embedding.kind, tokens(&embedding)[0]), (StepKind::Embedding, Some(9)));
}

#[test]
fn openlit_says_of_more_than_agents_that_it_is_one() {
    let openlit = |scope: &str, name: &str, more: &[(&str, Value)]| {
        let mut list =
            vec![("gen_ai.operation.name", Value::from("invoke_agent")), ("gen_ai.agent.name", "weather".into())];
        list.extend_from_slice(more);
        told(&format!("openlit.instrumentation.{scope}"), name, &list).kind
    };
    assert_eq!(openlit("langchain", "invoke_agent weather", &[]), StepKind::Agent);
    // A node of a graph, a step of an agent, a hand-over.
    assert_eq!(openlit("langgraph", "invoke_agent model", &[]), StepKind::Task);
    let step = [("gen_ai.smolagents.step_number", Value::Int(1))];
    assert_eq!(openlit("smolagents", "invoke_agent weather step_1", &step), StepKind::Task);
    let from = [("gen_ai.agent.source", "triage".into())];
    assert_eq!(openlit("openai_agents", "invoke_agent weather", &from), StepKind::Task);
    // A tool that fails has a name and nothing else.
    let failed =
        told("openlit.instrumentation.smolagents", "execute_tool get_weather", &[("error.type", "ValueError".into())]);
    assert_eq!((failed.kind, failed.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    let failed = told("openlit.instrumentation.smolagents", "invoke_agent weather", &[("error.type", "E".into())]);
    assert_eq!((failed.kind, failed.agent_name.as_deref()), (StepKind::Agent, Some("weather")));
}

#[test]
fn who_serves_a_model_is_not_its_name() {
    // LangChain's streams of Anthropic, by OpenLIT.
    let call = |model: &str| {
        let list = [
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.provider.name", "anthropic".into()),
            ("gen_ai.request.model", "anthropic".into()),
            ("gen_ai.response.model", model.into()),
        ];
        let call = told("openlit.instrumentation.langchain", "chat anthropic", &list);
        (call.request_model, call.response_model)
    };
    assert_eq!(call("anthropic"), (None, None));
    assert_eq!(call("claude-sonnet-4-5"), (None, Some("claude-sonnet-4-5".to_owned())));
    // A model may be called like another provider.
    let list = [("gen_ai.provider.name", Value::from("ollama")), ("gen_ai.request.model", "mistral".into())];
    assert_eq!(told("app", "chat mistral", &list).request_model.as_deref(), Some("mistral"));
}

#[test]
fn ag2_reports_what_calls_used_beside_them_and_what_it_used_itself_as_calls() {
    let used = |of: (&str, &str), provider: &str| {
        let list = [
            (of.0, Value::from(of.1)),
            ("gen_ai.provider.name", provider.into()),
            ("gen_ai.usage.input_tokens", Value::Int(131)),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
            ("gen_ai.usage.cache_read_input_tokens", Value::Int(64)),
            ("gen_ai.usage.cache_creation_input_tokens", Value::Int(16)),
            ("gen_ai.usage.thinking_tokens", Value::Int(8)),
        ];
        let step = told("opentelemetry.instrumentation.ag2", "record_usage", &list);
        (step.kind, tokens(&step))
    };
    let call = ("gen_ai.operation.name", "chat");
    assert_eq!(used(call, "anthropic"), (StepKind::Llm, [Some(211), Some(64), Some(16), Some(37), Some(8)]));
    assert_eq!(used(call, "openai"), (StepKind::Llm, [Some(131), Some(64), Some(16), Some(37), Some(8)]));
    let kind = |word| used(("ag2.usage.kind", word), "openai").0;
    let kinds = ["model_call", "subtask", "compaction", "aggregation"].map(kind);
    assert_eq!(kinds, [StepKind::Task, StepKind::Task, StepKind::Llm, StepKind::Llm]);
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
fn openinference_has_counted_cached_tokens_in_for_the_claude_agent_sdk() {
    let agent = told(
        "openinference.instrumentation.claude_agent_sdk",
        "ClaudeAgentSDK.query",
        &[
            ("openinference.span.kind", "AGENT".into()),
            ("llm.provider", "anthropic".into()),
            ("llm.token_count.prompt", Value::Int(211)),
            ("llm.token_count.completion", Value::Int(37)),
            ("llm.token_count.total", Value::Int(248)),
            ("llm.token_count.prompt_details.cache_read", Value::Int(64)),
            ("llm.token_count.prompt_details.cache_write", Value::Int(16)),
        ],
    );
    assert_eq!((agent.kind, tokens(&agent)), (StepKind::Agent, [Some(211), Some(64), Some(16), Some(37), None]));
}

#[test]
fn what_clients_and_servers_of_mcp_say_beside_calls_of_tools_is_no_run() {
    let said = |method: &str| {
        let step = told("mcp-python-sdk", method, &[("mcp.method.name", method.into())]);
        (step.kind, step.is_genai)
    };
    assert_eq!(said("initialize"), (StepKind::Task, false));
    assert_eq!(said("tools/list"), (StepKind::Task, false));
    assert_eq!(said("tools/call"), (StepKind::Tool, true));
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
fn weave_passes_on_what_the_provider_reports_and_its_integrations_have_counted_it_in() {
    let call = |scope: &str, input: i64, more: &[(&str, Value)]| {
        let mut list = vec![
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.provider.name", "anthropic".into()),
            ("gen_ai.usage.input_tokens", Value::Int(input)),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(64)),
            ("gen_ai.usage.cache_write.input_tokens", Value::Int(16)),
        ];
        list.extend_from_slice(more);
        tokens(&told(scope, "chat claude-sonnet-4-5", &list))
    };
    let all = [Some(211), Some(64), Some(16), Some(37), None];
    assert_eq!(call("weave.conversation", 131, &[]), all);
    assert_eq!(call("weave.conversation", 211, &[("integration.name", "claude_agent_sdk".into())]), all);
    let list = [("weave.openai_agents.task.workflow_name", "Trip".into()), ("gen_ai.conversation.id", "s-1".into())];
    let trip = told("weave.openai_agents", "workflow Trip", &list);
    assert_eq!((trip.kind, trip.workflow_name.as_deref()), (StepKind::Workflow, Some("Trip")));
}

#[test]
fn litellms_proxy_has_the_model_on_every_span_and_answers_by_its_own_name_for_it() {
    // `LITELLM_OTEL_V2`: baggage is on what FastAPI and the router tell of the same request.
    let baggage = [
        ("litellm.api_key.hash", Value::from("h")),
        ("gen_ai.request.model", "my-gpt".into()),
        ("litellm.metadata.user_api_key_user_id", "default_user_id".into()),
        ("litellm.metadata.user_api_key_end_user_id", "user-42".into()),
    ];
    for (scope, name) in [("fastapi", "fastapi.dependencies"), ("litellm", "route my-gpt")] {
        let step = told(scope, name, &baggage);
        assert_eq!((step.kind, step.billed), (StepKind::Task, false), "{name}");
    }
    let mut list = baggage.to_vec();
    list.extend([
        ("gen_ai.operation.name", Value::from("chat")),
        ("gen_ai.response.model", "my-gpt".into()),
        ("litellm.provider.model", "openai/gpt-5-mini".into()),
    ]);
    let call = told("litellm", "chat my-gpt", &list);
    assert_eq!((call.kind, call.billed), (StepKind::Llm, true));
    assert_eq!((call.response_model.as_deref(), call.user_id.as_deref()), (Some("gpt-5-mini"), Some("user-42")));
    // The one before, which has the proxy's name for the model apart, and what the client gave as Python prints it.
    let call = told(
        "litellm",
        "litellm_request",
        &[
            ("gen_ai.operation.name", "acompletion".into()),
            ("llm.request.type", "acompletion".into()),
            ("litellm.model_group", "my-gpt".into()),
            ("litellm.provider.model", "openai/gpt-5-mini".into()),
            ("gen_ai.request.model", "gpt-5-mini".into()),
            ("gen_ai.response.model", "my-gpt".into()),
            ("metadata.user_api_key_user_id", "default_user_id".into()),
            (
                "metadata.requester_metadata",
                "{'session_id': 'sess-1', 'trace_id': 'c0', 'headers': {'host': 'h'}}".into(),
            ),
        ],
    );
    assert_eq!((call.kind, call.response_model.as_deref()), (StepKind::Llm, Some("gpt-5-mini")));
    assert_eq!((call.session_id.as_deref(), call.user_id.as_deref()), (Some("sess-1"), None));
    // An answer under a name that is not the proxy's is that of the model.
    let list = [
        ("gen_ai.operation.name", Value::from("chat")),
        ("litellm.model_group", "my-gpt".into()),
        ("litellm.provider.model", "azure/my-deployment".into()),
        ("gen_ai.response.model", "gpt-5-mini-2025-08-07".into()),
    ];
    assert_eq!(told("litellm", "litellm_request", &list).response_model.as_deref(), Some("gpt-5-mini-2025-08-07"));
}

#[test]
fn openinference_of_litellm_has_a_model_named_without_a_keyword_in_the_answer_alone() {
    // `openinference-instrumentation-litellm` 0.1.51 with `litellm` 1.108.
    let answer =
        r#"{"id": "chatcmpl-1", "model": "gpt-5-mini-2025-08-07", "object": "chat.completion", "choices": []}"#;
    let call = told(
        "openinference.instrumentation.litellm",
        "completion",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.invocation_parameters", r#"{"metadata": {"session_id": "sess-1"}, "user": "user-42"}"#.into()),
            ("output.value", answer.into()),
        ],
    );
    assert_eq!(call.response_model.as_deref(), Some("gpt-5-mini-2025-08-07"));
    assert_eq!((call.session_id.as_deref(), call.user_id.as_deref()), (Some("sess-1"), Some("user-42")));
}

#[test]
fn an_agent_whose_answer_ended_with_an_error_has_failed() {
    let by = |of: &str, reason: &str| {
        let answer = format!(
            r#"[{{"role":"assistant","parts":[{{"content":"no such model","type":"text"}}],"finish_reason":"{reason}"}}]"#
        );
        let list = [
            ("gen_ai.operation.name", Value::from("invoke_agent")),
            ("gen_ai.agent.name", "weather_agent".into()),
            ("gen_ai.output.messages", answer.into()),
        ];
        told(&format!("opentelemetry.instrumentation.genai.{of}"), "invoke_agent weather_agent", &list)
    };
    let failed = by("agno", "error");
    let reason = failed.error.and_then(|error| error.message);
    assert_eq!((failed.status, reason.as_deref()), (StepStatus::Error, Some("no such model")));
    assert_eq!(by("agno", "stop").status, StepStatus::Success);
    // Of LangChain over OpenAI's responses it is the word for a reason that is not known.
    assert_eq!(by("langchain", "error").status, StepStatus::Success);
}

#[test]
fn what_is_around_the_agents_of_openais_sdk_is_a_workflow_and_who_is_unknown_no_agent() {
    // `opentelemetry-instrumentation-openai-agents-v2` 0.1.0.
    let step = |name: &str, operation: &str, agent: Option<&str>| {
        let mut list =
            vec![("gen_ai.operation.name", Value::from(operation)), ("gen_ai.provider.name", "openai".into())];
        list.extend(agent.map(|agent| ("gen_ai.agent.name", Value::from(agent))));
        told("opentelemetry.instrumentation.openai_agents", name, &list)
    };
    let root = step("trip", "invoke_agent", None);
    assert_eq!((root.kind, root.workflow_name.as_deref()), (StepKind::Workflow, Some("trip")));
    let agent = step("invoke_agent weather_agent", "invoke_agent", Some("weather_agent"));
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather_agent")));
    let call = step("chat gpt-5-mini", "chat", Some("OpenAI Agent"));
    assert_eq!((call.kind, call.agent_name), (StepKind::Llm, None));
}

#[test]
fn a_tool_of_agno_has_failed_whose_print_says_so() {
    // `opentelemetry-instrumentation-agno` 0.62 with `agno` 3.1.
    let tool = |output: &str| {
        let list = [
            ("traceloop.span.kind", Value::from("tool")),
            ("gen_ai.tool.name", "get_weather".into()),
            ("traceloop.entity.output", output.into()),
        ];
        let tool = told("opentelemetry.instrumentation.agno", "get_weather.tool", &list);
        (
            tool.status,
            tool.error.and_then(|error| error.message),
            tool.content.output.map(|text| text.as_str().to_owned()),
        )
    };
    let failed = tool("status='failure' result=None error='no weather' updated_session_state=None images=None");
    assert_eq!((failed.0, failed.1.as_deref()), (StepStatus::Error, Some("no weather")));
    let done = tool("status='success' result='18 degrees' error=None updated_session_state=None images=None");
    assert_eq!((done.0, done.2.as_deref()), (StepStatus::Success, Some("\"18 degrees\"")));
    // What a tool of a program gives may have a status of its own.
    assert_eq!(tool(r#"{"status": "failure"}"#).0, StepStatus::Success);
}

#[test]
fn building_a_workflow_is_no_run_by_the_agent_framework() {
    let list = [("workflow_builder.name", "Sequential".into()), ("workflow.id", "a-1".into())];
    assert!(!told("agent_framework", "workflow.build", &list).is_genai);
    let run = told("agent_framework", "workflow.run", &[("workflow.name", "Sequential".into())]);
    assert_eq!((run.kind, run.is_genai, run.workflow_name.as_deref()), (StepKind::Workflow, true, Some("Sequential")));
}

#[test]
fn the_id_of_an_answer_is_no_conversation() {
    // The Agent Framework goes on with OpenAI's responses by the answer before.
    let session = |id: &str| {
        let list = [("gen_ai.operation.name", Value::from("chat")), ("gen_ai.conversation.id", id.into())];
        told("agent_framework", "chat gpt-5-mini", &list).session_id
    };
    assert_eq!(session("resp_0a1"), None);
    assert_eq!(session("conv_0a1").as_deref(), Some("conv_0a1"));
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
    // An agent says of its answer only what the program lets it.
    assert_eq!(status("agent_framework", "invoke_agent", &[]), StepStatus::Success);
    assert_eq!(status("semantic_kernel.utils", "invoke_agent", &[]), StepStatus::Success);
    let call = |more: &[(&str, Value)]| {
        let mut list = vec![("openinference.span.kind", Value::from("LLM")), ("llm.model_name", "gpt-4o-mini".into())];
        list.extend_from_slice(more);
        told("openinference.instrumentation.openai_agents", "generation", &list).status
    };
    assert_eq!(call(&[]), StepStatus::Cancelled);
    assert_eq!(call(&[("output.value", "It is 18 degrees.".into())]), StepStatus::Success);
    assert_eq!(call(&[("output.value", "__REDACTED__".into())]), StepStatus::Success);
    // Strands says by what.
    let list = [
        ("gen_ai.operation.name", Value::from("invoke_agent")),
        ("gen_ai.system", "strands-agents".into()),
        ("strands.cancellation.type", "CancelledError".into()),
    ];
    assert_eq!(told("strands.telemetry.tracer", "invoke_agent weather", &list).status, StepStatus::Cancelled);
}

#[test]
fn a_stream_that_was_refused_leaves_an_answer_with_nothing_in_it_by_pydantic_ai() {
    let status = |scope: &str, output: &str, model: &str| {
        let list = [
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.request.model", "gpt-4o-mini".into()),
            ("gen_ai.response.model", model.into()),
            ("gen_ai.output.messages", output.into()),
        ];
        told(scope, "chat gpt-4o-mini", &list).status
    };
    let empty = r#"[{"role":"assistant","parts":[]}]"#;
    assert_eq!(status("pydantic-ai", empty, "gpt-4o-mini"), StepStatus::Error);
    // The program stopped reading it, or hides what was said.
    assert_eq!(status("pydantic-ai", empty, "gpt-4o-mini-2024-07-18"), StepStatus::Success);
    let said = r#"[{"role":"assistant","parts":[{"type":"text","content":"It is 18 "}]}]"#;
    assert_eq!(status("pydantic-ai", said, "gpt-4o-mini"), StepStatus::Success);
    // Logfire tells of a stream's answer later.
    assert_eq!(status("logfire.openai", empty, "gpt-4o-mini"), StepStatus::Success);
}

#[test]
fn the_name_of_a_model_tells_who_serves_it_where_nobody_else_does() {
    let provider = |scope: &str, told_of: &str, model: &str| {
        let list = [
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.system", told_of.into()),
            ("gen_ai.request.model", model.into()),
        ];
        told(scope, "chat", &list).provider
    };
    // Strands, and ADK 1.14 with models of LiteLLM's.
    let unnamed = |model: &str| provider("strands.telemetry.tracer", "strands-agents", model);
    for model in [
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "anthropic.claude-3-5-sonnet-20241022-v2:0",
        "global.amazon.nova-2-lite-v1:0",
        "meta.llama3-1-70b-instruct-v1:0",
        "bedrock/us.amazon.nova-lite-v1:0",
    ] {
        assert_eq!(unnamed(model).as_deref(), Some("aws.bedrock"), "{model}");
    }
    assert_eq!(provider("gcp.vertex.agent", "gcp.vertex.agent", "openai/gpt-4o-mini").as_deref(), Some("openai"));
    for model in [
        "gpt-4o-mini",
        "claude-sonnet-4-5",
        "meta.llama-3.1-405b-instruct",
        "Qwen/Qwen3-8B",
        "mistralai/Mistral-7B",
        // OpenRouter's.
        "deepseek/deepseek-r1:free",
    ] {
        assert_eq!(unnamed(model), None, "{model}");
    }
    // The instrumentations of the OpenAI Agents SDK take all for OpenAI's; who serves models of others knows it better.
    let by_openai = |model: &str| provider("logfire.openai_agents", "openai", model);
    assert_eq!(by_openai("anthropic/claude-sonnet-4-5").as_deref(), Some("anthropic"));
    assert_eq!(by_openai("gpt-5-mini").as_deref(), Some("openai"));
    assert_eq!(provider("opentelemetry.instrumentation.groq", "groq", "openai/gpt-oss-120b").as_deref(), Some("groq"));
    // Another one may have answered.
    let answered = |model: &str| {
        let list = [
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.system", "openai".into()),
            ("gen_ai.request.model", "anthropic/claude-sonnet-4-5".into()),
            ("gen_ai.response.model", model.into()),
        ];
        told("logfire.openai", "chat", &list).provider
    };
    for (model, provider) in [
        ("claude-sonnet-4-5-20250929", "anthropic"),
        ("anthropic/claude-sonnet-4-5", "anthropic"),
        ("gpt-4o-mini-2024-07-18", "openai"),
        ("openai/gpt-4o-mini", "openai"),
    ] {
        assert_eq!(answered(model).as_deref(), Some(provider), "{model}");
    }
}

#[test]
fn a_class_that_python_prints_is_the_class() {
    // Semantic Kernel.
    let list = [
        ("gen_ai.operation.name", Value::from("chat")),
        ("error.type", "<class 'semantic_kernel.exceptions.service_exceptions.ServiceResponseException'>".into()),
    ];
    let error = told("semantic_kernel.utils", "chat gpt-4o-mini", &list).error.and_then(|error| error.kind);
    assert_eq!(error.as_deref(), Some("semantic_kernel.exceptions.service_exceptions.ServiceResponseException"));
}

#[test]
fn a_tool_that_failed_has_its_name_in_that_of_its_span_alone_by_older_adk() {
    let list = [("exception.type", Value::from("ValueError"))];
    let tool = told("gcp.vertex.agent", "execute_tool get_weather", &list);
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    assert_eq!(told("gcp.vertex.agent", "execute_tool (merged)", &[]).kind, StepKind::Task);
}
