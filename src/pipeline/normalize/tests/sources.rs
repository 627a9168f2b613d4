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
