//! OpenAI's Agents SDK, by its own telemetry and by that of others.

use super::*;

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
fn mlflow_says_of_what_is_around_the_agents_of_openais_sdk_that_it_is_one() {
    let list = [("mlflow.spanType", r#""AGENT""#.into()), ("mlflow.openai.agent_run_root", "true".into())];
    let root = told("", "AgentRunner.run", &list);
    assert_eq!((root.kind, root.agent_name.as_deref()), (StepKind::Workflow, None));
    let agent = told("", "weather_agent", &[("mlflow.spanType", r#""AGENT""#.into())]);
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather_agent")));
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

/// `openai-agents` 0.24 by `openinference-instrumentation-openai-agents` 2.6 and `opentelemetry-instrumentation-openai-agents`
/// 0.62.4, run against a scripted server.
#[test]
fn an_id_that_all_answers_have_is_none_and_a_stream_that_was_given_up_is_told_by_silence() {
    let answer = |id: &str| {
        let answer = format!(r#"[{{"id": "{id}", "object": "response", "output": []}}]"#);
        let list = [("openinference.span.kind", "LLM".into()), ("output.value", answer.as_str().into())];
        told("openinference.instrumentation.openai_agents", "generation", &list).response_id
    };
    assert_eq!((answer("__fake_id__"), answer("resp_1").as_deref()), (None, Some("resp_1")));
    let of = |operation: &str, name: &str, more: &[(&'static str, Value)]| {
        let list = [("gen_ai.operation.name", operation.into()), ("gen_ai.agent.name", "streamer".into())];
        let mut record = ended(&[&list, more].concat());
        record.scope.name = "opentelemetry.instrumentation.openai_agents".to_owned();
        record.span.name = name.to_owned();
        record.span.status = Some(Status { code: 1, message: String::new() });
        facts(&record).status
    };
    let call = |name: &str, more: &[(&'static str, Value)]| of("chat", name, more);
    assert_eq!(call("openai.response", &[]), StepStatus::Cancelled);
    assert_eq!(call("openai.response", &[("gen_ai.response.model", "gpt-5-mini".into())]), StepStatus::Success);
    assert_eq!(call("openai.response", &[("gen_ai.usage.input_tokens", Value::Int(7))]), StepStatus::Success);
    // OpenTelemetry's own, in the same scope, has nothing of a stream that reports no usage.
    assert_eq!(call("chat gpt-4o-mini", &[]), StepStatus::Success);
    // Of chat completions OpenLLMetry never has an answer (0.47 and 0.62).
    assert_eq!(call("openai.response", &[("gen_ai.request.model", "gpt-4o-mini".into())]), StepStatus::Success);
    let of_before = |operation: &str| of(operation, "openai.response", &[("llm.request.type", operation.into())]);
    assert_eq!(of_before("chat"), StepStatus::Success);
    assert_eq!(of_before("response"), StepStatus::Cancelled);
}

/// `openlit` 0.20, run against a scripted server.
#[test]
fn openlits_guardrails_bear_an_agents_operation_and_a_model_may_be_what_python_prints() {
    let list = [
        ("gen_ai.operation.name", "invoke_agent".into()),
        ("telemetry.sdk.name", "openlit".into()),
        ("gen_ai.guardrail.triggered", Value::Bool(false)),
        ("gen_ai.request.model", "<agents.models.openai_responses.OpenAIResponsesModel object at 0x7f07>".into()),
    ];
    let guardrail = told("openlit.otel.tracing", "invoke_agent ig", &list);
    assert_eq!((guardrail.kind, guardrail.request_model), (StepKind::Guardrail, None));
}
