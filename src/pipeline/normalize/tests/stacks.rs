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
