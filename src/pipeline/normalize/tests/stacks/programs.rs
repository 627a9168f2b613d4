//! Programs, gateways and platforms, and what all of them have in common.

use super::*;

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
fn openlits_langchain_has_counted_cached_tokens_in() {
    let call = |scope: &str| {
        let list = [
            ("telemetry.sdk.name", Value::from("openlit")),
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", "anthropic".into()),
            ("gen_ai.usage.input_tokens", Value::Int(2494)),
            ("gen_ai.usage.output_tokens", Value::Int(206)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(128)),
            ("gen_ai.usage.cache_creation.input_tokens", Value::Int(64)),
        ];
        told(scope, "chat claude-sonnet-4-5", &list).tokens.and_then(|tokens| tokens.prompt)
    };
    assert_eq!(call("openlit.instrumentation.langchain"), Some(2494));
    // The provider's own client has its counts.
    assert_eq!(call("openlit.instrumentation.anthropic"), Some(2686));
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
    // ADK 1.26 and 2.4 take every model for Gemini's.
    let by_adk = |model: &str| provider("gcp.vertex.agent", "gemini", model);
    assert_eq!(by_adk("anthropic/claude-sonnet-4-5").as_deref(), Some("anthropic"));
    assert_eq!(by_adk("gemini-2.5-flash").as_deref(), Some("gcp.gemini"));
    // Where it is told to ask Vertex AI, for that's.
    let by_vertex = |model: &str| provider("gcp.vertex.agent", "vertex_ai", model);
    assert_eq!(by_vertex("anthropic/claude-sonnet-4-5").as_deref(), Some("anthropic"));
    assert_eq!(by_vertex("gemini-2.5-flash").as_deref(), Some("gcp.vertex_ai"));
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

/// `strands-agents` 1.62 and 1.50, run against a scripted server: since cached tokens have the standard's names, input has them in it.
#[test]
fn strands_for_python_counts_cached_tokens_in_since_they_have_the_standards_names() {
    let call = |cached: &str, written: &str, input: i64| {
        let list = [
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.system", "strands-agents".into()),
            ("gen_ai.request.model", "claude-sonnet-4-5".into()),
            ("gen_ai.usage.input_tokens", Value::Int(input)),
            ("gen_ai.usage.output_tokens", Value::Int(89)),
            (cached, Value::Int(128)),
            (written, Value::Int(64)),
        ];
        tokens(&told("strands.telemetry.tracer", "chat", &list))
    };
    let billed = [Some(1051), Some(128), Some(64), Some(89), None];
    let dotted = ["gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_creation.input_tokens"];
    assert_eq!(call(dotted[0], dotted[1], 1051), billed);
    let before = ["gen_ai.usage.cache_read_input_tokens", "gen_ai.usage.cache_write_input_tokens"];
    assert_eq!(call(before[0], before[1], 859), billed);
}

/// Claude Code 2.1 under `logfire` 5.4 and `langsmith` 0.15, run against a scripted server.
#[test]
fn what_claude_code_says_itself_is_no_call_of_a_model() {
    let step = |operation: &str, asked: &str, answered: &str| {
        let list = [
            ("gen_ai.operation.name", operation.into()),
            ("gen_ai.request.model", asked.into()),
            ("gen_ai.response.model", answered.into()),
            ("gen_ai.output.messages", Value::from(r#"[{"role":"assistant","parts":[]}]"#)),
        ];
        let step = told("logfire.claude_agent_sdk", "chat <synthetic>", &list);
        (step.kind, step.model().map(str::to_owned))
    };
    let claude = "claude-sonnet-4-5";
    assert_eq!(step("chat", "<synthetic>", "<synthetic>"), (StepKind::Task, None));
    assert_eq!(step("chat", claude, claude), (StepKind::Llm, Some(claude.into())));
    // An agent whose last word it is.
    assert_eq!(step("invoke_agent", claude, "<synthetic>"), (StepKind::Agent, Some(claude.into())));
}

/// `logfire` 5.4 with the Claude agent SDK, run against a scripted server: a call is opened behind the last one, too.
#[test]
fn a_call_that_logfire_opened_and_nothing_came_of_is_none() {
    let step = |more: &[(&str, Value)]| {
        let mut list = vec![("gen_ai.operation.name", Value::from("chat")), ("logfire.msg", "chat".into())];
        list.extend(more.iter().cloned());
        told("logfire.claude_agent_sdk", "chat", &list).kind
    };
    assert_eq!(step(&[("gen_ai.response.finish_reasons", "tool_use".into())]), StepKind::Task);
    assert_eq!(step(&[("gen_ai.response.id", "msg_1".into())]), StepKind::Llm);
    assert_eq!(step(&[("error.type", "APIError".into())]), StepKind::Llm);
}

/// `strands-agents` 1.28, run against a scripted server; the code of 1.24 to 1.34. Others have the time of the end and a status.
#[test]
fn a_call_of_strands_that_has_no_end_is_no_success() {
    let status = |name: &str, more: &[(&'static str, Value)], code: i32, events: &[&str]| {
        let list = [
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.system", "strands-agents".into()),
            ("gen_ai.request.model", "claude-sonnet-4-5".into()),
            ("gen_ai.event.start_time", "2026-12-01T03:43:15.910346+00:00".into()),
        ];
        let mut record = ended(&[&list, more].concat());
        (record.scope.name, record.span.name) = ("strands.telemetry.tracer".to_owned(), name.to_owned());
        record.span.status = Some(Status { code, ..Status::default() });
        record.span.events = events.iter().map(|name| event(name, &[])).collect();
        facts(&record).status
    };
    let end = [("gen_ai.event.end_time", Value::from("2026-12-01T03:43:19.993287+00:00"))];
    let (unset, ok) = (0, 1);
    assert_eq!(status("chat", &[], unset, &["gen_ai.user.message"]), StepStatus::Cancelled);
    assert_eq!(status("chat", &end, unset, &["gen_ai.user.message"]), StepStatus::Success);
    assert_eq!(status("chat", &[], ok, &[]), StepStatus::Success);
    assert_eq!(status("chat", &[], STATUS_ERROR, &["exception"]), StepStatus::Error);
    assert_eq!(status("execute_event_loop_cycle", &[], unset, &[]), StepStatus::Success);
}

/// `strands-agents` 1.40, run against a scripted server.
#[test]
fn an_object_that_an_agent_of_strands_is_asked_for_is_a_call() {
    let list = [
        ("gen_ai.operation.name", Value::from("execute_structured_output")),
        ("gen_ai.system", "strands-agents".into()),
        ("gen_ai.agent.name", "structured".into()),
    ];
    let call = told("strands.telemetry.tracer", "execute_structured_output", &list);
    assert_eq!((call.kind, call.tokens, call.agent_name.as_deref()), (StepKind::Llm, None, Some("structured")));
}

/// GitHub's Copilot CLI 1.0.102, run against a scripted server.
#[test]
fn copilot_serves_its_models_itself_unless_the_address_is_another_providers() {
    let provider = |scope: &str, told_by: &str, address: &str| {
        let list = [
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.provider.name", told_by.into()),
            ("server.address", address.into()),
        ];
        told(scope, "chat gpt-5-mini", &list).provider
    };
    let by_copilot = |told_by: &str, address: &str| provider("github.copilot", told_by, address);
    assert_eq!(by_copilot("github", "api.githubcopilot.com").as_deref(), Some("copilot"));
    assert_eq!(by_copilot("github", "127.0.0.1").as_deref(), Some("copilot"));
    assert_eq!(by_copilot("github", "api.openai.com").as_deref(), Some("openai"));
    assert_eq!(by_copilot("anthropic", "127.0.0.1").as_deref(), Some("anthropic"));
    assert_eq!(provider("app", "github", "models.github.ai").as_deref(), Some("github"));
}

/// `mcp` 2.3 and `fastmcp` 4.2 for Python.
#[test]
fn each_layer_of_mcp_names_the_tool() {
    for name in ["MCP send tools/call get_weather", "tools/call get_weather"] {
        let step = told("mcp-python-sdk", name, &[("mcp.method.name", "tools/call".into())]);
        assert_eq!((step.kind, step.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    }
    let says = |method: &str| {
        let step = told("mcp-python-sdk", "MCP send", &[("mcp.method.name", method.into())]);
        (step.kind, step.is_handshake)
    };
    assert_eq!(says("server/discover"), (StepKind::Task, true));
    assert_eq!(says("tools/list"), (StepKind::Task, false));
}

/// `langsmith` 0.15 with the Claude Agent SDK, run against a scripted server.
#[test]
fn a_conversation_of_claude_code_by_langsmith_says_itself_that_it_failed() {
    let said = |integration: &str, failed: bool, text: &str| {
        let completion = serde_json::json!({"content": [{"type": "text", "text": text}], "role": "assistant"});
        let list = [
            ("langsmith.span.kind", "chain".into()),
            ("langsmith.metadata.ls_integration", integration.into()),
            ("langsmith.metadata.is_error", Value::Bool(failed)),
            ("gen_ai.completion", completion.to_string().into()),
        ];
        let step = told("langsmith", "claude.conversation", &list);
        (step.status, step.error.and_then(|error| error.message))
    };
    let of = |integration: &str, failed: bool| said(integration, failed, "API Error: 400");
    let stopped = said("claude-agent-sdk", true, "[Request interrupted by user]");
    assert_eq!(stopped.0, StepStatus::Cancelled);
    assert_eq!(of("claude-agent-sdk", true), (StepStatus::Error, Some("API Error: 400".to_owned())));
    assert_eq!(of("claude-agent-sdk", false), (StepStatus::Success, None));
    assert_eq!(of("mine", true), (StepStatus::Success, None));
}

/// Codex CLI 0.171.
#[test]
fn what_codex_does_about_a_stream_that_broke_off_tells_of_a_failure() {
    let step = |scope: &str, name: &str| {
        let step = told(scope, name, &[("request", "Sampling".into())]);
        (step.kind, step.is_genai, step.status, step.deals_with_failure)
    };
    let name = "handle_response_stream_error";
    assert_eq!(step("codex_exec", name), (StepKind::Task, false, StepStatus::Error, true));
    assert_eq!(step("another", name), (StepKind::Task, false, StepStatus::Success, false));
}
