//! Platforms, and what their instrumentations make of the standard's names and of others.

use super::*;

#[test]
fn monocle_has_its_entities_by_number_and_the_rest_in_events() {
    let monocle = |kind: &str, more: &[(&str, Value)], events: Vec<SpanEvent>| {
        let list = [
            ("monocle_apptrace.version", Value::from("0.8.15")),
            ("workflow.name", "my-flow".into()),
            ("span.type", kind.into()),
        ];
        let mut record = ended(&[&list, more].concat());
        (record.span.name, record.scope.name) = ("langchain.invoke".to_owned(), "monocle_apptrace".to_owned());
        record.span.events = events;
        facts(&record)
    };
    let call = [
        ("entity.1.type", Value::from("inference.openai")),
        ("entity.2.type", "model.llm.gpt-4o-mini".into()),
        ("entity.2.name", "gpt-4o-mini".into()),
    ];
    let used = event(
        "metadata",
        &[
            ("prompt_tokens", Value::Int(237)),
            ("completion_tokens", 23.into()),
            ("total_tokens", 260.into()),
            ("cache_read_input_tokens", 128.into()),
            ("finish_reason", "stop".into()),
        ],
    );
    let llm = monocle("inference.framework", &call, vec![used]);
    assert_eq!((llm.kind, llm.provider.as_deref(), llm.model()), (StepKind::Llm, Some("openai"), Some("gpt-4o-mini")));
    assert_eq!(
        (tokens(&llm), &*llm.finish_reasons),
        ([Some(237), Some(128), None, Some(23), None], &["stop".to_owned()][..])
    );
    // The client's own span below it has no counts, and is no second call.
    assert_eq!(monocle("inference.modelapi", &call, Vec::new()).kind, StepKind::Task);
    let agent = monocle("agentic.invocation", &[("entity.1.name", "planner".into())], Vec::new());
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("planner")));
    let tool = monocle("agentic.tool.invocation", &[("entity.1.name", "get_weather".into())], Vec::new());
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    let whole = monocle("workflow", &[], Vec::new());
    assert_eq!((whole.kind, whole.workflow_name.as_deref()), (StepKind::Workflow, Some("my-flow")));
}

#[test]
fn traceai_has_openinferences_kinds_and_the_model_of_a_stream_among_what_was_asked_with() {
    let traceai = |scope: &str, name: &str, kind: &str, more: &[(&str, Value)]| {
        told(scope, name, &[&[("gen_ai.span.kind", Value::from(kind))], more].concat())
    };
    let call = traceai(
        "traceai_openai",
        "ChatCompletion",
        "LLM",
        &[
            ("gen_ai.provider.name", "openai".into()),
            ("gen_ai.request.parameters", r#"{"model": "gpt-4o-mini", "stream": true}"#.into()),
            ("gen_ai.usage.input_tokens", 274.into()),
            ("gen_ai.usage.input_tokens.cache_read", 128.into()),
            ("gen_ai.usage.output_tokens", 26.into()),
            ("gen_ai.usage.output_tokens.reasoning", 7.into()),
        ],
    );
    assert_eq!(
        (call.kind, call.model(), tokens(&call)),
        (StepKind::Llm, Some("gpt-4o-mini"), [Some(274), Some(128), None, Some(26), Some(7)])
    );
    let named = [("metadata", Value::from(r#"{"lc_agent_name": "planner"}"#))];
    let kinds = [("planner", "CHAIN"), ("model", "CHAIN"), ("get_weather", "TOOL")]
        .map(|(name, kind)| traceai("traceai_langchain", name, kind, &named).kind);
    assert_eq!(kinds, [StepKind::Agent, StepKind::Task, StepKind::Tool]);
}

#[test]
fn what_cohere_bills_counts_and_not_what_it_wraps_around_it() {
    let usage = r#"{"id": "c1", "usage": {"billed_units": {"input_tokens": 237.0, "output_tokens": 23.0}, "tokens": {"input_tokens": 303.0, "output_tokens": 25.0}}}"#;
    let list = |more: &[(&'static str, Value)]| {
        let list = [
            ("openinference.span.kind", Value::from("LLM")),
            ("llm.token_count.prompt", 303.into()),
            ("llm.token_count.completion", 25.into()),
        ];
        tokens(&told("openinference.instrumentation.cohere", "ClientV2.chat", &[&list, more].concat()))
    };
    assert_eq!(list(&[("output.value", usage.into())]), [Some(237), None, None, Some(23), None]);
    // A stream does not tell it.
    assert_eq!(list(&[("output.value", "Yes.".into())]), [Some(303), None, None, Some(25), None]);
}

#[test]
fn langwatch_has_the_conversation_in_its_metadata() {
    let root = told(
        "langwatch",
        "my-trace",
        &[
            ("langwatch.span.type", "span".into()),
            ("metadata", r#"{"thread_id": "thread-1", "user_id": "u1", "labels": ["a"]}"#.into()),
        ],
    );
    assert_eq!((root.session_id.as_deref(), root.user_id.as_deref()), (Some("thread-1"), Some("u1")));
}

#[test]
fn sentrys_stream_without_an_answer_was_given_up() {
    let call = |more: &[(&str, Value)]| {
        let list = [("gen_ai.operation.name", Value::from("chat")), ("gen_ai.request.model", "gpt-4o-mini".into())];
        let mut record = ended(&[&list, more].concat());
        (record.span.name, record.scope.name) = ("chat gpt-4o-mini".to_owned(), "@sentry/node".to_owned());
        normalize(&mut record);
        let output = record.span.attr_str(names::OUTPUT_MESSAGES).map(str::to_owned);
        (facts(&record).status, output)
    };
    assert_eq!(call(&[("gen_ai.response.streaming", true.into())]), (StepStatus::Cancelled, None));
    let said = r#"[{"role":"assistant","parts":[{"type":"text","content":"Yes."}]}]"#.to_owned();
    for text in [r#"["Yes."]"#, "Yes."] {
        assert_eq!(call(&[("gen_ai.response.text", text.into())]), (StepStatus::Success, Some(said.clone())), "{text}");
    }
    let asked = [
        ("gen_ai.response.text", Value::from(r#"[""]"#)),
        (
            "gen_ai.response.tool_calls",
            r#"[{"id":"c1","type":"function","function":{"name":"book","arguments":"{}"}}]"#.into(),
        ),
    ];
    let said = r#"[{"role":"assistant","parts":[{"type":"tool_call","id":"c1","name":"book","arguments":{}}]}]"#;
    assert_eq!(call(&asked), (StepStatus::Success, Some(said.to_owned())));
}

/// `guardrails-ai` 0.11, run against a scripted server.
#[test]
fn a_call_that_a_guardrail_makes_is_one() {
    let step = |of: &str| {
        let list = [
            ("openinference.span.kind", "GUARDRAIL".into()),
            ("type", of.into()),
            ("user.id", "unknown".into()),
            ("llm.invocation_parameters", "{'temperature': 0, 'model': 'openai/gpt-4o-mini'}".into()),
            ("llm.token_count.prompt", Value::Int(237)),
            ("llm.token_count.completion", Value::Int(23)),
        ];
        told("guardrails-ai", "call", &list)
    };
    let call = step("guardrails/guard/step/call");
    assert_eq!((call.kind, call.user_id.as_deref()), (StepKind::Llm, None));
    assert_eq!((call.provider.as_deref(), call.model()), (Some("openai"), Some("gpt-4o-mini")));
    assert_eq!(tokens(&call), [Some(237), None, None, Some(23), None]);
    assert_eq!(step("guardrails/guard/step/validator").kind, StepKind::Guardrail);
}

/// `@arizeai/openinference-instrumentation-claude-agent-sdk` 0.3.1, run against a scripted server: 459 were billed.
#[test]
fn an_input_without_its_cached_tokens_is_not_known() {
    let agent_with = |scope: &str, counts: [i64; 3]| {
        let list = [
            ("openinference.span.kind", "AGENT".into()),
            ("llm.model_name", "claude-sonnet-4-5".into()),
            ("llm.token_count.prompt", Value::Int(counts[0])),
            ("llm.token_count.completion", Value::Int(counts[1])),
            ("llm.token_count.total", Value::Int(counts[2])),
        ];
        let agent = told(scope, "ClaudeAgent.query", &list);
        (tokens(&agent), agent.tokens.and_then(|tokens| tokens.total))
    };
    let agent = |scope: &str| agent_with(scope, [267, 41, 308]);
    let javascript = agent("@arizeai/openinference-instrumentation-claude-agent-sdk");
    // A total of what is known.
    assert_eq!(javascript, ([None, None, None, Some(41), None], Some(41)));
    let python = agent("openinference.instrumentation.claude_agent_sdk");
    assert_eq!(python, ([Some(267), None, None, Some(41), None], Some(308)));
    // One that failed at once.
    let failed = agent_with("@arizeai/openinference-instrumentation-claude-agent-sdk", [0; 3]);
    assert_eq!(failed, ([None; 5], None));
}
