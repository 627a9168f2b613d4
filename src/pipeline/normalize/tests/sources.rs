//! What stacks write by their source code, of which there is no recording.

use super::*;

/// An ended span of that name with these attributes, and the scope that made it.
fn written(scope: &str, name: &str, list: &[(&str, Value)]) -> Record {
    let mut record = ended(list);
    record.span.name = name.to_owned();
    record.scope.name = scope.to_owned();
    record
}

fn told(scope: &str, name: &str, list: &[(&str, Value)]) -> StepFacts {
    facts(&written(scope, name, list))
}

/// Input and what of it was read from a cache.
fn input(facts: &StepFacts) -> (Option<u64>, Option<u64>) {
    let tokens = facts.tokens.unwrap_or_default();
    (tokens.prompt, tokens.cache_read)
}

#[test]
fn a_call_of_spring_ai_is_known_by_its_scope_also_without_tools() {
    let call = |scope: &str, more: &[(&str, Value)]| {
        let mut list = vec![
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.system", "anthropic".into()),
            ("gen_ai.usage.input_tokens", "3000".into()),
            ("gen_ai.usage.cache_read.input_tokens", "2000".into()),
            ("gen_ai.usage.output_tokens", "37".into()),
            ("gen_ai.usage.total_tokens", "3037".into()),
        ];
        list.extend_from_slice(more);
        input(&told(scope, "chat claude-sonnet-4-5", &list))
    };
    let tools = [("spring.ai.model.request.tool.names", Value::from(r#"["get_weather"]"#))];
    assert_eq!(call("org.springframework.boot", &tools), (Some(5000), Some(2000)));
    assert_eq!(call("org.springframework.boot", &[]), (Some(5000), Some(2000)));
    assert_eq!(call("io.micrometer.micrometer-tracing", &[]), (Some(5000), Some(2000)));
    assert_eq!(call("my.own", &[]), (Some(3000), Some(2000)));
    // What else such a program does is none of Spring AI's.
    let request = written("org.springframework.boot", "http get /ask", &[("uri", "/ask".into())]);
    assert_eq!(changes(&request), "");
}

#[test]
fn a_span_that_two_dialects_wrote_on_is_read_by_both() {
    // AI SDK 5 with `openinference-vercel` 1.
    let stream = [
        ("openinference.span.kind", Value::from("CHAIN")),
        ("ai.operationId", "ai.streamText".into()),
        ("ai.telemetry.functionId", "weather".into()),
    ];
    let agent = told("ai", "ai.streamText weather", &stream);
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather")));
    let mut root = written("ai", "ai.streamText weather", &stream);
    root.span.parent_span_id.clear();
    assert_eq!(facts(&root).kind, StepKind::Agent);
    let call = told(
        "ai",
        "ai.streamText.doStream",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.token_count.prompt", Value::Int(3000)),
            ("ai.operationId", "ai.streamText.doStream".into()),
            ("ai.model.provider", "anthropic.messages".into()),
            ("gen_ai.usage.input_tokens", Value::Int(3000)),
            ("ai.usage.cachedInputTokens", Value::Int(2000)),
            (
                "ai.response.providerMetadata",
                r#"{"anthropic":{"usage":{"input_tokens":3000,"cache_read_input_tokens":2000,"output_tokens":37}}}"#
                    .into(),
            ),
        ],
    );
    assert_eq!((call.kind, input(&call)), (StepKind::Llm, (Some(5000), Some(2000))));
    // A chain that nobody else knows better stays one.
    let chain = |list: &[(&str, Value)]| told("openinference.instrumentation.langchain", "RunnableSequence", list).kind;
    assert_eq!(chain(&[("openinference.span.kind", "CHAIN".into())]), StepKind::Task);
    // Nor does one that says nothing of it change what the standard's operation says.
    let list = [
        ("gen_ai.operation.name", Value::from("chat")),
        ("litellm.call_type", "completion".into()),
        ("lmnr.span.type", "DEFAULT".into()),
    ];
    assert_eq!(told("litellm", "litellm_request", &list).kind, StepKind::Llm);
    // A tool of rig that failed, by Logfire's library for Rust.
    let tool = told(
        "logfire",
        "execute_tool",
        &[
            ("logfire.msg", "execute_tool".into()),
            ("target", "rig::agent".into()),
            ("gen_ai.operation.name", "execute_tool".into()),
            ("gen_ai.tool.call.outcome", "error".into()),
        ],
    );
    assert_eq!(tool.status, StepStatus::Error);
}

#[test]
fn a_span_is_announced_whoever_else_wrote_on_it() {
    let mut record = ended(&[
        ("openinference.span.kind", "LLM".into()),
        ("logfire.span_type", "pending_span".into()),
        ("logfire.pending_parent_id", "0000000000000000".into()),
    ]);
    record.span.span_id = vec![9; 8];
    normalize(&mut record);
    assert_eq!((record.kind, &record.span.span_id), (RecordKind::Started, &vec![1; 8]));
}

#[test]
fn what_the_provider_reported_says_more_than_the_table_of_the_emitter() {
    // Logfire's instrumentation of Anthropic's client.
    let response = r#"{"message":{"role":"assistant"},"usage":{"input_tokens":3000,"cache_read_input_tokens":2000,"cache_creation_input_tokens":0,"output_tokens":37}}"#;
    let call = |list: &[(&str, Value)]| {
        let mut all =
            vec![("gen_ai.request.model", Value::from("claude-sonnet-4-5")), ("response_data", response.into())];
        all.extend_from_slice(list);
        input(&told("logfire.anthropic", "Message with 'claude-sonnet-4-5'", &all))
    };
    assert_eq!(call(&[]), (Some(5000), Some(2000)));
    // What stands beside it has them counted in.
    let counted = [("gen_ai.usage.input_tokens", Value::Int(5000)), ("gen_ai.usage.output_tokens", Value::Int(37))];
    assert_eq!(call(&counted), (Some(5000), Some(2000)));
}

#[test]
fn mlflows_own_summary_is_what_the_provider_says_beside_it() {
    let call = |summary: &str, usage: &str| {
        let outputs = format!(r#"{{"id": "msg_1", "usage": {usage}}}"#);
        let list = [
            ("mlflow.spanType", Value::from(r#""CHAT_MODEL""#)),
            ("mlflow.chat.tokenUsage", summary.into()),
            ("mlflow.spanOutputs", outputs.as_str().into()),
        ];
        input(&told("mlflow.anthropic.autolog", "Messages.create", &list))
    };
    let apart = r#"{"input_tokens": 3000, "cache_read_input_tokens": 2000, "cache_creation_input_tokens": 0, "output_tokens": 37}"#;
    assert_eq!(
        call(r#"{"input_tokens": 3000, "output_tokens": 37, "total_tokens": 3037}"#, apart),
        (Some(5000), Some(2000))
    );
    // Later ones have counted them in, under Anthropic's names.
    let counted_in =
        r#"{"input_tokens": 5000, "output_tokens": 37, "total_tokens": 5037, "cache_read_input_tokens": 2000}"#;
    assert_eq!(call(counted_in, apart), (Some(5000), Some(2000)));
    assert_eq!(call(counted_in, "null"), (Some(5000), Some(2000)));
}

#[test]
fn a_total_that_only_adds_up_with_the_cache_says_more_than_any_table() {
    // LangChain's `ChatBedrockConverse`, whose total is Bedrock's: by MLflow, and as its own object.
    let summary =
        r#"{"input_tokens": 3000, "output_tokens": 37, "total_tokens": 5037, "cache_read_input_tokens": 2000}"#;
    let call = told(
        "mlflow.langchain.autolog",
        "ChatBedrockConverse",
        &[("mlflow.spanType", r#""CHAT_MODEL""#.into()), ("mlflow.chat.tokenUsage", summary.into())],
    );
    assert_eq!(input(&call), (Some(5000), Some(2000)));
    let usage = r#"{"input_tokens": 3000, "output_tokens": 37, "total_tokens": 5037, "input_token_details": {"cache_read": 2000, "cache_creation": 0}}"#;
    let call = told(
        "langsmith",
        "ChatBedrockConverse",
        &[("langsmith.span.kind", "llm".into()), ("langsmith.metadata.usage_metadata", usage.into())],
    );
    assert_eq!(input(&call), (Some(5000), Some(2000)));
}

#[test]
fn of_mcp_only_a_call_of_a_tool_is_a_run_whatever_names_it_bears() {
    // FastMCP.
    let said = |name: &str, list: &[(&str, Value)]| {
        let step = told("fastmcp", name, list);
        (step.kind, step.is_genai, step.tool_name)
    };
    let prompt = [("mcp.method.name", Value::from("prompts/get")), ("gen_ai.prompt.name", "greet".into())];
    assert_eq!(said("prompts/get greet", &prompt), (StepKind::Task, false, None));
    let list = [("mcp.method.name", Value::from("tools/list")), ("gen_ai.tool.name", "greet".into())];
    assert!(!said("tools/list", &list).1);
    // Its 3.0 names the tool in the name of the span alone.
    let call = [
        ("rpc.system", Value::from("mcp")),
        ("mcp.method.name", "tools/call".into()),
        ("fastmcp.component.key", "greet".into()),
    ];
    assert_eq!(said("tools/call greet", &call), (StepKind::Tool, true, Some("greet".to_owned())));
}

#[test]
fn only_what_a_callback_got_is_taken_out_of_the_arguments_of_a_tool() {
    let arguments = |text: &str| {
        let list = [("traceloop.span.kind", Value::from("tool")), ("gen_ai.tool.call.arguments", text.into())];
        let tool = told("opentelemetry.instrumentation.openai_agents", "start.tool", &list);
        tool.content.tool_args.map(|text| text.as_str().to_owned())
    };
    let own = r#"{"workflow":"x","inputs":{"a":1}}"#;
    assert_eq!(arguments(own).as_deref(), Some(own));
    let of_callback = r#"{"input_str":"{'a': 1}","tags":[],"metadata":{},"inputs":{"a":1},"kwargs":{}}"#;
    assert_eq!(arguments(of_callback).as_deref(), Some(r#"{"a":1}"#));
}

#[test]
fn a_hand_over_of_openllmetry_is_no_agent_also_without_an_operation() {
    let list = [("traceloop.span.kind", Value::from("handoff")), ("gen_ai.agent.name", "triage".into())];
    let mut record = written("opentelemetry.instrumentation.openai_agents", "triage → weather.handoff", &list);
    record.span.kind = 1;
    assert_eq!(facts(&record).kind, StepKind::Task);
}

/// OpenLIT's log of a call bears the id of a step of LangGraph where another instrumentation has made the call's own span.
#[test]
fn an_event_of_another_operation_says_nothing_of_its_span() {
    let of = |operation: &str| {
        let mut step = written("app", "step", &[("gen_ai.operation.name", operation.into())]);
        let call = [("gen_ai.operation.name", Value::from("chat")), ("gen_ai.usage.input_tokens", Value::Int(7))];
        let name = "gen_ai.client.inference.operation.details".to_owned();
        step.span.events = vec![SpanEvent { name, attributes: attributes(&call), ..SpanEvent::default() }];
        facts(&step).tokens.and_then(|tokens| tokens.prompt)
    };
    assert_eq!((of("invoke_agent"), of("chat"), of("generate_content")), (None, Some(7), Some(7)));
}
