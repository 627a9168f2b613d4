//! Clients of providers.

use super::*;

#[test]
fn what_writes_a_request_and_what_hands_over_is_no_call() {
    let prepared = told(
        "openinference.instrumentation.llama_index",
        "OpenAI._prepare_chat_with_tools",
        &[("openinference.span.kind", "LLM".into())],
    );
    assert_eq!(prepared.kind, StepKind::Task);
    // `mlflow` 3.4 and 3.17.
    let prepared =
        told("mlflow.tracing.provider", "OpenAI._prepare_chat_with_tools", &[("mlflow.spanType", "\"LLM\"".into())]);
    assert_eq!(prepared.kind, StepKind::Task);
    // `openinference-instrumentation-anthropic` 3.1.
    for name in ["messages.count_tokens", "beta.messages.count_tokens"] {
        let list = [("openinference.span.kind", "LLM".into()), ("llm.model_name", "claude-sonnet-4-5".into())];
        let count = told("openinference.instrumentation.anthropic", name, &list);
        assert_eq!((count.kind, count.is_genai), (StepKind::Task, false), "{name}");
    }
    let own = [("gen_ai.provider.name", "anthropic".into()), ("gen_ai.request.model", "claude-sonnet-4-5".into())];
    assert!(!told("com.anthropic.sdk.python", "anthropic.messages.count_tokens", &own).is_genai);
    let handed = told(
        "openinference.instrumentation.openai_agents",
        "handoff to helper_agent",
        &[("openinference.span.kind", "TOOL".into())],
    );
    assert_eq!(handed.kind, StepKind::Task);
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

/// `pydantic-ai` 2 with Anthropic's thinking, run against a scripted server.
#[test]
fn pydantic_ai_passes_on_what_anthropic_calls_reasoning() {
    let call = told(
        "pydantic-ai",
        "chat claude-sonnet-4-5",
        &[
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", "anthropic".into()),
            ("gen_ai.usage.input_tokens", Value::Int(1088)),
            ("gen_ai.usage.output_tokens", Value::Int(92)),
            ("gen_ai.usage.details.thinking_tokens", Value::Int(7)),
        ],
    );
    assert_eq!(tokens(&call), [Some(1088), None, None, Some(92), Some(7)]);
}

#[test]
fn a_call_of_openlit_that_failed_has_a_name_alone() {
    let failed = told("openlit.instrumentation.anthropic", "chat claude-sonnet-4-5", &[]);
    assert_eq!(failed.kind, StepKind::Llm);
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

/// `@traceloop/instrumentation-anthropic` 0.19.0 and 0.22.6: no stream has a reason for its end, and one that was left says what its beginning
/// did of the tokens that came out.
#[test]
fn a_stream_of_anthropics_in_javascript_with_more_than_its_one_token_was_left() {
    let call = |scope: &str, output: i64, answer: &str, reason: Option<&str>| {
        let mut list = vec![
            ("llm.request.type", Value::from("chat")),
            ("gen_ai.system", "Anthropic".into()),
            ("gen_ai.request.model", "claude-sonnet-4-5".into()),
            ("gen_ai.response.model", "claude-sonnet-4-5-20250929".into()),
            ("gen_ai.usage.prompt_tokens", Value::Int(131)),
            ("gen_ai.usage.completion_tokens", Value::Int(output)),
            ("llm.usage.total_tokens", Value::Int(131 + output)),
            ("gen_ai.completion.0.role", "assistant".into()),
            ("gen_ai.completion.0.content", answer.into()),
        ];
        list.extend(reason.map(|reason| ("gen_ai.completion.0.finish_reason", reason.into())));
        let call = told(scope, "anthropic.chat", &list);
        (call.status, tokens(&call)[0], tokens(&call)[3])
    };
    let of = |output, answer, reason| call("@traceloop/instrumentation-anthropic", output, answer, reason);
    let (begun, word) = (r#"[{"type":"text","text":"It is 18 "}]"#, r#"[{"type":"text","text":"Yes"}]"#);
    let asks = r#"[{"type":"tool_use","id":"t-1","name":"get_weather","input":{}}]"#;
    assert_eq!(of(1, begun, None), (StepStatus::Cancelled, Some(131), None));
    assert_eq!(of(1, asks, None), (StepStatus::Cancelled, Some(131), None));
    // Read to its end, with one word, without content, by others.
    assert_eq!(of(57, begun, None), (StepStatus::Success, Some(131), Some(57)));
    assert_eq!(of(1, begun, Some("max_tokens")), (StepStatus::Success, Some(131), Some(1)));
    assert_eq!(of(1, word, None), (StepStatus::Success, Some(131), Some(1)));
    assert_eq!(of(1, "", None), (StepStatus::Success, Some(131), Some(1)));
    assert_eq!(call("app", 1, begun, None).2, Some(1));
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
    // A node of Pydantic AI's graph, by 1.36 and 1.45, and a tool of Agno's, by 1.36.
    let phase = |operation: &str| {
        [("gen_ai.operation.name", operation.into()), ("gen_ai.agent.lifecycle.phase", "tool_execution".into())]
    };
    for scope in ["openlit.otel.tracing", "openlit.instrumentation.pydantic_ai"] {
        let list = [&[("telemetry.sdk.name", "openlit".into())], &phase("execute_tool")[..]].concat();
        assert_eq!(told(scope, "execute_tool gpt-4o-mini", &list).kind, StepKind::Task, "{scope}");
    }
    let list = [&[("gen_ai.tool.name", "get_weather".into())], &phase("execute_task")[..]].concat();
    let tool = told("openlit.otel.tracing", "tool get_weather", &list);
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    // Who uses Agno, by 1.36; by 1.45 the session has the standard's name.
    let list = [("gen_ai.session.id", "s-1".into()), ("gen_ai.request.user", "u-1".into())];
    let agent = told("openlit.otel.tracing", "agent weather", &list);
    assert_eq!((agent.session_id.as_deref(), agent.user_id.as_deref()), (Some("s-1"), Some("u-1")));
    // A tool that fails has a name and nothing else.
    let failed =
        told("openlit.instrumentation.smolagents", "execute_tool get_weather", &[("error.type", "ValueError".into())]);
    assert_eq!((failed.kind, failed.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    let failed = told("openlit.instrumentation.smolagents", "invoke_agent weather", &[("error.type", "E".into())]);
    assert_eq!((failed.kind, failed.agent_name.as_deref()), (StepKind::Agent, Some("weather")));
}

/// As `any-agent` 1.18, Langtrace 3.8, AgentScope 2.0, and Anthropic's own client beside Langtrace, told in November 2026.
#[test]
fn a_call_by_another_word_and_its_cache_by_another_key_are_known() {
    let call = |scope: &str, operation: &str, more: &[(&str, Value)]| {
        let mut list =
            vec![("gen_ai.provider.name", "openai".into()), ("gen_ai.usage.input_tokens", Value::Int(1_007))];
        if !operation.is_empty() {
            list.push(("gen_ai.operation.name", operation.into()));
            list.push(("gen_ai.request.model", "gpt-4o-mini".into()));
        }
        list.extend_from_slice(more);
        told(scope, "call", &list)
    };
    assert_eq!(call("any_agent", "call_llm", &[]).kind, StepKind::Llm);
    assert_eq!(call("langtrace", "embed", &[]).kind, StepKind::Embedding);
    let langtrace = call("langtrace", "chat", &[("gen_ai.usage.cached_tokens", Value::Int(201))]);
    assert_eq!(tokens(&langtrace)[..2], [Some(1_007), Some(201)]);
    let agentscope = [
        ("agentscope.usage.cache_input_tokens", Value::Int(201)),
        ("agentscope.usage.cache_creation_input_tokens", Value::Int(51)),
    ];
    assert_eq!(tokens(&call("agentscope", "chat", &agentscope))[..3], [Some(1_007), Some(201), Some(51)]);
    let answered = [("gen_ai.response.id", "msg_1".into()), ("http.response.status_code", Value::Int(200))];
    let taken_over = call("com.anthropic.sdk.python", "", &answered);
    assert_eq!((taken_over.kind, taken_over.is_at_wire), (StepKind::Llm, true));
}

/// `anthropic` 2.14 for Python, `langtrace-python-sdk` 3.8.21, run against a scripted server.
#[test]
fn anthropics_runner_of_tools_is_an_agent_and_langtraces_word_for_a_call_the_method() {
    let list = [("gen_ai.operation.name", "invoke_agent".into())];
    let runner = told("com.anthropic.sdk.python", "anthropic.messages.tool_runner", &list);
    assert_eq!((runner.kind, runner.billed), (StepKind::Agent, false));
    let given = r#"[{"type": "text", "text": "sunny in Paris"}]"#;
    let list = [("gen_ai.operation.name", "execute_tool".into()), ("anthropic.tool_result.content", given.into())];
    let tool = told("com.anthropic.sdk.python", "anthropic.custom_tool_use get_weather", &list);
    assert!(tool.content.tool_result.is_some_and(|result| result.as_str().contains("sunny")));
    let list = [
        ("gen_ai.operation.name", "openai.responses.create".into()),
        ("gen_ai.request.model", "gpt-5-mini".into()),
        ("gen_ai.response_id", "resp_4".into()),
    ];
    let call = told("langtrace_python_sdk.instrumentation.openai.instrumentation", "openai.responses.create", &list);
    assert_eq!((call.kind, call.billed, call.response_id.as_deref()), (StepKind::Llm, true, Some("resp_4")));
}

#[test]
fn a_model_for_embeddings_or_ranks_is_no_call_whoever_tells_it() {
    for (model, kind) in [
        ("amazon.titan-embed-text-v2:0", StepKind::Embedding),
        ("us.cohere.embed-v4:0", StepKind::Embedding),
        ("openai/text-embedding-3-small", StepKind::Embedding),
        ("cohere.rerank-v3-5:0", StepKind::Rerank),
        ("my-embed-chat", StepKind::Llm),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", StepKind::Llm),
    ] {
        let by_openinference = [("openinference.span.kind", Value::from("LLM")), ("llm.model_name", model.into())];
        let call = told("openinference.instrumentation.bedrock", "bedrock.invoke_model", &by_openinference);
        assert_eq!(call.kind, kind, "{model}");
        let standard = [("gen_ai.operation.name", Value::from("chat")), ("gen_ai.request.model", model.into())];
        assert_eq!(told("app", "chat", &standard).kind, kind, "{model}");
    }
}

/// `openinference-instrumentation-bedrock` 0.1.61: a stream of `InvokeModel` that was refused has no attributes at all.
#[test]
fn a_request_to_bedrock_that_was_refused_is_a_call_by_its_name() {
    let kind_of = |name: &str| told("openinference.instrumentation.bedrock", name, &[]).kind;
    let refused = told("openinference.instrumentation.bedrock", "bedrock.invoke_model_with_response_stream", &[]);
    assert_eq!((refused.kind, refused.is_genai), (StepKind::Llm, true));
    assert_eq!(refused.provider.as_deref(), Some("aws.bedrock"));
    assert_eq!(kind_of("bedrock.retrieve"), StepKind::Task);
}

/// `opentelemetry-instrumentation-botocore` 0.66b2 takes a sixth of the letters.
#[test]
fn what_botocore_estimates_is_not_what_was_used() {
    let call = |method: &str, model: &str| {
        let list = [
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.system", "aws.bedrock".into()),
            ("gen_ai.request.model", model.into()),
            ("rpc.method", method.into()),
            ("gen_ai.usage.input_tokens", Value::Int(1)),
            ("gen_ai.usage.output_tokens", Value::Int(6)),
        ];
        told("opentelemetry.instrumentation.botocore.bedrock-runtime", "chat", &list).tokens.map(|used| used.prompt)
    };
    assert_eq!(call("InvokeModel", "mistral.mistral-large-2402-v1:0"), None);
    assert_eq!(call("InvokeModel", "cohere.command-r-v1:0"), None);
    assert_eq!(call("Converse", "mistral.mistral-large-2402-v1:0"), Some(Some(1)));
    assert_eq!(call("InvokeModel", "meta.llama3-1-8b-instruct-v1:0"), Some(Some(1)));
}

/// `opentelemetry-instrumentation-google-generativeai` 0.62.4, run against a scripted server.
#[test]
fn what_a_total_of_gemini_has_more_is_not_guessed_where_its_own_tools_were_asked_for() {
    let call = |tools: &str, more: &[(&str, Value)]| {
        let mut list = vec![
            ("gen_ai.operation.name", Value::from("generate_content")),
            ("gen_ai.provider.name", "gcp.gen_ai".into()),
            ("gen_ai.request.model", "gemini-2.5-flash".into()),
            ("gen_ai.tool.definitions", tools.into()),
            ("gen_ai.usage.input_tokens", Value::Int(298)),
            ("gen_ai.usage.output_tokens", Value::Int(32)),
            ("gen_ai.usage.total_tokens", Value::Int(380)),
        ];
        list.extend(more.iter().cloned());
        let call = told("opentelemetry.instrumentation.google_generativeai", "generate_content", &list);
        (tokens(&call), call.tokens.and_then(|tokens| tokens.total))
    };
    let own = r#"[{"url_context": {}}]"#;
    assert_eq!(call(own, &[]), ([None; 5], Some(380)));
    // What was thought is known, or the program's own tools alone were asked for.
    let thought = [("gen_ai.usage.reasoning_tokens", Value::Int(50))];
    let thoughts = ([Some(298), None, None, Some(82), Some(50)], Some(380));
    assert_eq!(call(own, &thought), thoughts);
    assert_eq!(call(r#"[{"name": "url_context", "parameters": {}}]"#, &[]), thoughts);
}

#[test]
fn a_stream_that_was_given_up_is_known_by_the_end_that_it_lacks() {
    let chat = || vec![("gen_ai.operation.name", Value::from("chat")), ("gen_ai.request.model", "m".into())];
    let status = |scope: &str, name: &str, more: &[(&'static str, Value)]| {
        told(scope, name, &[chat(), more.to_vec()].concat()).status
    };
    let first = ("gen_ai.response.time_to_first_chunk", Value::Double(0.02));
    let bedrock = "opentelemetry.instrumentation.genai.bedrock.x";
    let read = ("gen_ai.usage.output_tokens", Value::Int(3));
    assert_eq!(status(bedrock, "chat m", std::slice::from_ref(&first)), StepStatus::Cancelled);
    assert_eq!(status(bedrock, "chat m", &[first.clone(), read.clone()]), StepStatus::Success);
    assert_eq!(status(bedrock, "chat m", &[]), StepStatus::Success);
    // `opentelemetry-instrumentation-google-genai` 1.3b0.
    let google = |more: &[(&'static str, Value)]| {
        let list = [("gen_ai.operation.name", "generate_content".into()), ("gen_ai.response.id", "g-1".into())];
        told("opentelemetry.instrumentation.google_genai", "generate_content m", &[&list, more].concat()).status
    };
    let reason = ("gen_ai.response.finish_reasons", Value::from(r#"["stop"]"#));
    assert_eq!(google(std::slice::from_ref(&first)), StepStatus::Cancelled);
    assert_eq!(google(&[first.clone(), reason]), StepStatus::Success);
    assert_eq!(google(&[]), StepStatus::Success);
    let method = |method: &str| [("rpc.method", Value::from(method)), ("http.status_code", Value::Int(200))];
    let botocore = "opentelemetry.instrumentation.botocore.bedrock-runtime";
    assert_eq!(status(botocore, "chat m", &method("ConverseStream")), StepStatus::Cancelled);
    // Of most makers nothing is read there, whoever reads it to its end.
    assert_eq!(status(botocore, "chat m", &method("InvokeModelWithResponseStream")), StepStatus::Success);
    assert_eq!(status(botocore, "chat m", &method("InvokeModel")), StepStatus::Success);
    let first = ("gen_ai.client.operation.time_to_first_chunk", Value::Double(0.02));
    let output =
        ("gen_ai.output.messages", r#"[{"role":"assistant","parts":[{"type":"text","content":"The"}]}]"#.into());
    assert_eq!(status("pydantic-ai", "chat m", &[output.clone(), first.clone()]), StepStatus::Cancelled);
    let whole = (
        "gen_ai.output.messages",
        r#"[{"role":"assistant","parts":[{"type":"text","content":"A."}],"finish_reason":"stop"}]"#.into(),
    );
    assert_eq!(status("pydantic-ai", "chat m", &[whole.clone(), first.clone()]), StepStatus::Success);
    assert_eq!(status("pydantic-ai", "chat m", &[output.clone(), first, read]), StepStatus::Success);
    assert_eq!(status("pydantic-ai", "chat m", std::slice::from_ref(&output)), StepStatus::Success);
    // Before 2 it has the answer's id alone.
    let id = [("gen_ai.response.id", Value::from("c-1")), ("logfire.json_schema", "{}".into())];
    assert_eq!(status("pydantic-ai", "chat m", &[&id[..], &[output]].concat()), StepStatus::Cancelled);
    assert_eq!(status("pydantic-ai", "chat m", &[&id[..], &[whole]].concat()), StepStatus::Success);
}

/// `opentelemetry-instrumentation-openai` 0.53, 0.60 and 0.62, run against a scripted server: with a status of OK, whoever left.
#[test]
fn a_stream_that_was_left_has_no_reason_by_openllmetry() {
    let status = |list: &[(&'static str, Value)], code: i32| {
        let all =
            [&[("gen_ai.operation.name", Value::from("chat")), ("gen_ai.response.id", "c-1".into())], list].concat();
        let mut record = ended(&all);
        record.scope.name = "opentelemetry.instrumentation.openai.v1".to_owned();
        record.span.status = Some(Status { code, ..Status::default() });
        facts(&record).status
    };
    // OK.
    let ok = 1;
    let newer = ("gen_ai.is_streaming", Value::Bool(true));
    let output = |reason: &str| {
        let text =
            r#"[{"role": "assistant", "parts": [{"content": "word", "type": "text"}], "finish_reason": REASON}]"#;
        ("gen_ai.output.messages", Value::from(text.replace("REASON", reason).as_str()))
    };
    let reasons = ("gen_ai.response.finish_reasons", Value::from("stop"));
    assert_eq!(status(&[newer.clone(), output(r#""""#)], ok), StepStatus::Cancelled);
    assert_eq!(status(std::slice::from_ref(&newer), ok), StepStatus::Cancelled);
    assert_eq!(status(&[newer.clone(), output(r#""stop""#)], ok), StepStatus::Success);
    assert_eq!(status(&[newer.clone(), reasons], ok), StepStatus::Success);
    assert_eq!(status(&[newer, output(r#""""#)], STATUS_ERROR), StepStatus::Error);
    // It has reasons with what was said alone.
    let older = ("llm.is_streaming", Value::Bool(true));
    let said = ("gen_ai.prompt.0.content", Value::from("hi"));
    assert_eq!(status(&[older.clone(), said.clone()], ok), StepStatus::Cancelled);
    assert_eq!(
        status(&[older.clone(), said, ("gen_ai.completion.0.finish_reason", "stop".into())], ok),
        StepStatus::Success
    );
    assert_eq!(status(&[older], ok), StepStatus::Success);
}

/// By Google's ADK (2.0) and OpenLIT (1.39).
#[test]
fn how_steps_ended_is_read_where_their_status_says_that_all_is_well() {
    let record = |scope: &str, name: &str, list: &[(&str, Value)], events: &[&str]| {
        let mut record = ended(list);
        record.span.name = name.to_owned();
        record.scope.name = scope.to_owned();
        record.span.status = Some(Status { code: 1, message: String::new() });
        record.span.events = events.iter().map(|name| event(name, &[])).collect();
        facts(&record).status
    };
    let adk = |response: &str| {
        record("gcp.vertex.agent", "call_llm", &[("gcp.vertex.agent.llm_response", response.into())], &[])
    };
    assert_eq!(adk(r#"{"content":{"parts":[{"text":" of"}]},"partial":true}"#), StepStatus::Cancelled);
    assert_eq!(adk(r#"{"content":{"parts":[{"text":"All of"}]},"partial":false}"#), StepStatus::Success);
    // Of 1.26, a stream that broke off says so, and has its last part as well.
    let mut broken = ended(&[("gcp.vertex.agent.llm_response", r#"{"content":null,"partial":true}"#.into())]);
    (broken.span.name, broken.scope.name) = ("call_llm".to_owned(), "gcp.vertex.agent".to_owned());
    broken.span.status = Some(Status { code: STATUS_ERROR, message: "ClientPayloadError: not completed".to_owned() });
    assert_eq!(facts(&broken).status, StepStatus::Error);
    let chat = [("gen_ai.operation.name", Value::from("chat")), ("gen_ai.system", "langchain".into())];
    assert_eq!(record("openlit.otel.tracing", "chat m", &chat, &["exception"]), StepStatus::Error);
    assert_eq!(record("openlit.otel.tracing", "chat m", &chat, &[]), StepStatus::Success);
}

#[test]
fn a_stream_by_openinference_that_was_given_up_has_no_status_and_no_reason() {
    let status = |name: &str, more: &[(&str, Value)]| {
        let kind = [("openinference.span.kind", Value::from("LLM"))];
        told("openinference.instrumentation.google_genai", name, &[&kind, more].concat()).status
    };
    let begun = ("output.value", Value::from(r#"{"candidates": []}"#));
    let reason = ("llm.finish_reason", Value::from("STOP"));
    assert_eq!(status("GenerateContentStream", std::slice::from_ref(&begun)), StepStatus::Cancelled);
    assert_eq!(status("GenerateContentStream", &[begun.clone(), reason]), StepStatus::Success);
    // Nothing was read of it, or it is no stream.
    assert_eq!(status("GenerateContentStream", &[]), StepStatus::Success);
    assert_eq!(status("GenerateContent", &[begun]), StepStatus::Success);
}

/// `openinference-instrumentation-google-genai` 0.1.13, run against a scripted server.
#[test]
fn cached_tokens_are_twice_in_what_versions_of_openinference_count_of_gemini() {
    let call = |version: &str, [prompt, completion, total]: [i64; 3], cached: Option<i64>| {
        let mut list = vec![
            ("openinference.span.kind", Value::from("LLM")),
            ("llm.provider", "google".into()),
            ("llm.model_name", "gemini-2.5-flash".into()),
            ("llm.token_count.prompt", Value::Int(prompt)),
            ("llm.token_count.completion", Value::Int(completion)),
            ("llm.token_count.completion_details.reasoning", Value::Int(31)),
            ("llm.token_count.total", Value::Int(total)),
        ];
        list.extend(cached.map(|cached| ("llm.token_count.prompt_details.cache_read", Value::Int(cached))));
        let mut record = ended(&list);
        (record.scope.name, record.scope.version) =
            ("openinference.instrumentation.google_genai".to_owned(), version.to_owned());
        let facts = facts(&record);
        (tokens(&facts), facts.tokens.and_then(|tokens| tokens.total))
    };
    let told = ([Some(1007), Some(501), None, Some(103), Some(31)], Some(1110));
    assert_eq!(call("0.1.13", [1508, 103, 1611], Some(501)), told);
    assert_eq!(call("0.1.16", [1007, 103, 1110], Some(501)), told);
    let uncached = ([Some(1042), None, None, Some(103), Some(31)], Some(1145));
    assert_eq!(call("0.1.13", [1042, 103, 1145], None), uncached);
}

/// `openinference-instrumentation-openai` 0.1.66, run against a scripted server; of what was left, 0.1.64 and before have no span.
#[test]
fn a_stream_of_openai_s_client_by_openinference_that_was_left_has_an_event_for_its_beginning_alone() {
    let status = |name: &str, more: &[(&str, Value)], code: i32, events: &[&str]| {
        let kind = [("openinference.span.kind", Value::from("LLM")), ("llm.model_name", "gpt-4o-mini".into())];
        let mut record = ended(&[&kind, more].concat());
        record.scope.name = "openinference.instrumentation.openai".to_owned();
        record.span.name = name.to_owned();
        record.span.status = Some(Status { code, message: String::new() });
        record.span.events = events.iter().map(|name| event(name, &[])).collect();
        facts(&record).status
    };
    let (unset, ok, begun) = (0, 1, &["First Token Stream Event"][..]);
    let part = [("output.value", Value::from(r#"{"choices": [{"message": {"content": "It is"}, "index": 0}]}"#))];
    let reason = [part[0].clone(), ("llm.finish_reason", "stop".into())];
    for name in ["ChatCompletion", "Completion"] {
        assert_eq!(status(name, &part, unset, begun), StepStatus::Cancelled, "{name}");
        assert_eq!(status(name, &[("output.value", "__REDACTED__".into())], unset, begun), StepStatus::Cancelled);
        assert_eq!(status(name, &reason, unset, begun), StepStatus::Success, "{name}");
        assert_eq!(status(name, &part, ok, begun), StepStatus::Success, "{name}");
        assert_eq!(status(name, &part, unset, &[]), StepStatus::Success, "{name}");
        assert_eq!(status(name, &part, STATUS_ERROR, &[begun, &["exception"]].concat()), StepStatus::Error);
    }
    assert_eq!(status("Response", &[], unset, begun), StepStatus::Cancelled);
    assert_eq!(status("Response", &[], ok, begun), StepStatus::Success);
    assert_eq!(status("Response", &[("output.value", "__REDACTED__".into())], unset, begun), StepStatus::Success);
}

/// `openlit` 1.45 with LangChain, run against a scripted server.
#[test]
fn a_call_that_is_well_without_any_answer_was_left_where_its_class_says_so() {
    let of = |operation: &str, class: &str, more: &[(&'static str, Value)]| {
        let list = [("gen_ai.operation.name", operation.into()), ("error.type", Value::from(class))];
        let mut record = ended(&[&list, more].concat());
        record.scope.name = "openlit.instrumentation.langchain".to_owned();
        record.span.name = format!("{operation} gpt-4o-mini");
        record.span.status = Some(Status { code: 1, message: String::new() });
        facts(&record).status
    };
    let status = |class: &str, more: &[(&'static str, Value)]| of("chat", class, more);
    assert_eq!(status("GeneratorExit", &[]), StepStatus::Cancelled);
    assert_eq!(status("builtins.GeneratorExit", &[("gen_ai.request.model", "m".into())]), StepStatus::Cancelled);
    // It was answered, or something else was raised and dealt with.
    assert_eq!(status("GeneratorExit", &[("gen_ai.usage.output_tokens", Value::Int(7))]), StepStatus::Success);
    assert_eq!(status("GeneratorExit", &[("gen_ai.output.messages", "[]".into())]), StepStatus::Success);
    assert_eq!(of("embeddings", "GeneratorExit", &[]), StepStatus::Success);
    assert_eq!(status("ValueError", &[]), StepStatus::Success);
}

#[test]
fn what_a_model_of_bedrock_s_thought_is_reasoning() {
    let block = r#"{"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}}"#;
    let text = serde_json::json!([{"role": "assistant", "parts": [
        {"type": "text", "content": block}, {"type": "tool_call", "arguments": {"n": 1}}], "finish_reason": "stop"}]);
    let mut record = ended(&[
        ("gen_ai.operation.name", "chat".into()),
        ("gen_ai.output.messages", text.to_string().replace("\"n\":1", "\"n\":1.00").into()),
    ]);
    normalize(&mut record);
    insta::assert_snapshot!(record.span.attr_str(names::OUTPUT_MESSAGES).unwrap(), @r#"[{"role":"assistant","parts":[{"type":"reasoning","content":"Hm."},{"type":"tool_call","arguments":{"n":1.00}}],"finish_reason":"stop"}]"#);
    let mut record = ended(&[("gen_ai.operation.name", "chat".into())]);
    let body = serde_json::json!({"message": {"role": "assistant",
        "content": [serde_json::from_str::<serde_json::Value>(block).unwrap()]}});
    record.span.events = vec![event("gen_ai.choice", &[("body", body.to_string().into())])];
    normalize(&mut record);
    assert_eq!(
        record.span.attr_str(names::OUTPUT_MESSAGES),
        Some(r#"[{"role":"assistant","parts":[{"type":"reasoning","content":"Hm."}]}]"#)
    );
}
