//! Frameworks in JavaScript.

use super::*;

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
    // Behind a first call version 5 has a reason of its own, 6.0.5 another one, and neither what was used.
    for reason in ["unknown", "other"] {
        let list = |operation: &str| {
            [
                ("ai.operationId", Value::from(operation)),
                ("ai.response.finishReason", reason.into()),
                ("ai.response.text", "".into()),
                ("ai.response.toolCalls", "[]".into()),
            ]
        };
        let root = list("ai.streamText");
        assert_eq!(status("ai", &root[..3]), StepStatus::Success, "of one call, whose provider gives no reason");
        assert_eq!(status("ai", &root), StepStatus::Cancelled);
        let used = [&root[..], &[("ai.usage.inputTokens", Value::Int(211))]].concat();
        assert_eq!(status("ai", &used), StepStatus::Success, "it was read to its end");
        assert_eq!(status("ai", &list("ai.generateText")), StepStatus::Success);
        assert_eq!(status("ai", &list("ai.streamText.doStream")), StepStatus::Success);
    }
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

/// `ai` 6.0.326 and 7.0.173 with `@ai-sdk/otel` 1.0.173, whose server ended the stream early and as it should end, or sent an error in it
/// that the provider's package passes over (`@ai-sdk/xai`).
#[test]
fn a_stream_that_broke_off_without_an_error_was_given_up_by_the_ai_sdk() {
    let six = |provider: &str, reason: &str, more: &[(&str, Value)]| {
        let stream = [
            ("ai.operationId", Value::from("ai.streamText.doStream")),
            ("ai.model.provider", provider.into()),
            ("ai.response.msToFirstChunk", Value::Double(17.1)),
            ("ai.response.finishReason", reason.into()),
            ("ai.response.text", "It ".into()),
        ];
        of_ai_sdk("ai", &[&stream, more].concat(), (0, ""), false)
    };
    let seven = |provider: &str, reason: &str, more: &[(&str, Value)]| {
        let stream = [
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.provider.name", provider.into()),
            ("gen_ai.client.operation.time_to_first_chunk", Value::Double(0.03)),
            ("gen_ai.response.finish_reasons", Value::Array(ArrayValue { values: vec![Value::from(reason).into()] })),
            ("gen_ai.response.id", "resp-1".into()),
        ];
        of_ai_sdk("gen_ai", &[&stream, more].concat(), (0, ""), false)
    };
    // What says that it failed has its reason.
    let failed = of_ai_sdk(
        "ai",
        &[
            ("ai.operationId", "ai.streamText.doStream".into()),
            ("ai.model.provider", "openai.responses".into()),
            ("ai.response.msToFirstChunk", Value::Double(17.1)),
            ("ai.response.finishReason", "other".into()),
        ],
        (2, "502"),
        false,
    );
    assert_eq!(failed.status, StepStatus::Error);
    let counts = |input: i64, output: i64| {
        let all = [
            ("ai.usage.inputTokens", input),
            ("ai.usage.outputTokens", output),
            ("ai.usage.totalTokens", input + output),
        ];
        all.map(|(key, count)| (key, Value::Int(count)))
    };
    let counts_of_seven =
        |input: i64| [("gen_ai.usage.input_tokens", Value::Int(input)), ("gen_ai.usage.output_tokens", Value::Int(0))];
    for provider in ["openai.responses", "openai.chat", "anthropic.messages", "google.generative-ai", "xai.responses"] {
        assert_eq!(six(provider, "other", &[]).status, StepStatus::Cancelled, "{provider}");
    }
    let broken = six("xai.responses", "other", &counts(0, 0));
    assert_eq!((broken.status, broken.tokens), (StepStatus::Cancelled, None));
    assert_eq!(six("openai.chat", "unknown", &[]).status, StepStatus::Cancelled);
    assert_eq!(seven("openai", "other", &[]).status, StepStatus::Cancelled);
    assert_eq!(seven("x_ai", "other", &counts_of_seven(0)).status, StepStatus::Cancelled);
    // One that was read to its end has its counts, and another provider may never tell any.
    assert_eq!(six("google.generative-ai", "other", &counts(211, 0)).status, StepStatus::Success);
    assert_eq!(seven("gcp.gemini", "other", &counts_of_seven(211)).status, StepStatus::Success);
    assert_eq!(six("openai.chat", "stop", &[]).status, StepStatus::Success);
    assert_eq!(seven("openai", "stop", &[]).status, StepStatus::Success);
    assert_eq!(six("lmstudio.chat", "other", &[]).status, StepStatus::Success);
    assert_eq!(seven("lmstudio", "other", &[]).status, StepStatus::Success);
    // An answer that came whole.
    let whole = [
        ("ai.operationId", "ai.generateText.doGenerate".into()),
        ("ai.model.provider", "openai.chat".into()),
        ("ai.response.finishReason", "other".into()),
    ];
    assert_eq!(of_ai_sdk("ai", &whole, (0, ""), false).status, StepStatus::Success);
    assert!(six("openai.chat", "other", &[]).ends_in_either && seven("openai", "other", &[]).ends_in_either);
    assert!(!six("openai.chat", "stop", &[]).ends_in_either && !seven("openai", "stop", &[]).ends_in_either);
}

/// `ai` 7.0.173 with `@ai-sdk/otel` 1.0.173: what it used is not told.
#[test]
fn to_write_down_what_was_said_is_a_call_by_the_ai_sdk() {
    let list = [
        ("gen_ai.operation.name", Value::from("ai.transcribe")),
        ("gen_ai.provider.name", "openai".into()),
        ("gen_ai.request.model", "gpt-4o-mini-transcribe".into()),
    ];
    let call = of_ai_sdk("gen_ai", &list, (0, ""), false);
    assert_eq!((call.kind, call.billed, call.tokens, call.status), (StepKind::Llm, true, None, StepStatus::Success));
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

/// `@mastra/otel-exporter` 1.4 with `@mastra/core` 1.71, run against a scripted server: both are said to have gone well.
#[test]
fn what_mastra_aborts_is_cancelled() {
    let agent = |output: &str| {
        let list = [
            ("mastra.span.type", "agent_run".into()),
            ("gen_ai.operation.name", "invoke_agent".into()),
            ("mastra.metadata.sessionId", "s-1".into()),
            ("mastra.agent_run.output", output.into()),
        ];
        told("@mastra/otel-exporter", "invoke_agent weather", &list)
    };
    let aborted = agent(r#"{"status":"aborted","reason":"abort"}"#);
    assert_eq!((aborted.status, aborted.session_id.as_deref()), (StepStatus::Cancelled, Some("s-1")));
    assert_eq!(agent(r#"{"status":"success"}"#).status, StepStatus::Success);
    let call = |more: Option<(&str, Value)>| {
        let mut list = vec![
            ("mastra.span.type", Value::from("model_inference")),
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.request.model", "gpt-4o-mini".into()),
        ];
        list.extend(more);
        told("@mastra/otel-exporter", "chat gpt-4o-mini", &list).status
    };
    assert_eq!(call(None), StepStatus::Cancelled);
    assert_eq!(call(Some(("gen_ai.response.finish_reasons", r#"["stop"]"#.into()))), StepStatus::Success);
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
        ("togetherai.chat", "together"),
        ("TogetherAI", "together"),
        ("azure.ai.openai", "azure.ai.openai"),
        ("azure.ai.inference", "azure.ai.inference"),
        ("azure.embeddings", "azure.ai.openai"),
        ("azure.deepseek", "azure.ai.openai"),
        ("azure-anthropic.messages", "azure.ai.inference"),
        ("bedrock.anthropic.messages", "aws.bedrock"),
        ("bedrock-mantle.responses", "aws.bedrock"),
        ("aws.bedrock", "aws.bedrock"),
        ("aws.sagemaker", "aws.sagemaker"),
        ("cohere.textEmbedding", "cohere"),
        ("cohere.reranking", "cohere"),
        ("google.generative-ai.interactions", "gcp.gemini"),
        ("google.vertex.chat", "gcp.vertex_ai"),
        ("google.vertex.embedding", "gcp.vertex_ai"),
        ("google.vertex.maas", "gcp.vertex_ai"),
        ("vertex.anthropic.messages", "gcp.vertex_ai"),
        ("googleVertex.anthropic.messages", "gcp.vertex_ai"),
        ("gcp.vertex_ai", "gcp.vertex_ai"),
        ("moonshotai.chat", "moonshot_ai"),
        ("ibm.watsonx.ai", "ibm.watsonx.ai"),
        ("my.own.chat", "my.own"),
        // What serves models has more than these.
        ("azure.ai.search", "azure.ai.search"),
        ("bedrock.agent", "bedrock.agent"),
    ] {
        let call = told("any", "chat", &[("gen_ai.provider.name", word.into())]);
        assert_eq!(call.provider.as_deref(), Some(provider));
    }
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
    // A sub-agent bears the name of the one it works for, too.
    let below = told(&[("subagent.name", "forecast".into())]);
    assert_eq!((below.kind, below.agent_name.as_deref()), (StepKind::Agent, Some("forecast")));
    assert!(below.tells_own_use && !call.tells_own_use);
}

#[test]
fn strands_for_javascript_names_its_service_where_the_provider_should_stand() {
    let call = |key: &'static str, model: &str, read: i64| {
        let list = [
            ("gen_ai.event.start_time", Value::from("2026-11-29T20:26:15.161Z")),
            ("gen_ai.operation.name", "chat".into()),
            (key, "travel-desk".into()),
            ("gen_ai.request.model", model.into()),
            ("gen_ai.usage.input_tokens", 785.into()),
            ("gen_ai.usage.output_tokens", 62.into()),
            ("gen_ai.usage.total_tokens", 847.into()),
            ("gen_ai.usage.cache_read.input_tokens", read.into()),
        ];
        told("travel-desk", "chat", &list)
    };
    for key in ["gen_ai.system", "gen_ai.provider.name"] {
        let plain = call(key, "gpt-4o-mini", 128);
        assert_eq!((plain.provider.as_deref(), tokens(&plain)), (None, [Some(785), Some(128), None, Some(62), None]));
        let apart = call(key, "claude-sonnet-4-5", 128);
        assert_eq!((apart.provider.as_deref(), tokens(&apart)), (None, [Some(913), Some(128), None, Some(62), None]));
        let bedrock = call(key, "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 128);
        assert_eq!((bedrock.provider.as_deref(), tokens(&bedrock)[0]), (Some("aws.bedrock"), Some(913)));
    }
    // LiteLLM's input has them.
    for model in ["anthropic/claude-sonnet-4-5", "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0"] {
        assert_eq!(tokens(&call("gen_ai.system", model, 128))[0], Some(785), "{model}");
    }
}

#[test]
fn adk_for_javascript_tells_thoughts_in_the_answer_and_failures_by_silence() {
    let spans = |language: &'static str, name: &str, list: &[(&str, Value)]| {
        let mut record = ended(list);
        (record.span.name, record.scope.name) = (name.to_owned(), "gcp.vertex.agent".to_owned());
        let language = KeyValue { key: "telemetry.sdk.language".to_owned(), value: Some(Value::from(language).into()) };
        std::sync::Arc::make_mut(&mut record.resource).attributes.push(language);
        facts(&record)
    };
    let answer = |answer: &str| {
        let list = [
            ("gen_ai.system", Value::from("gcp.vertex.agent")),
            ("gen_ai.request.model", "gemini-2.5-flash".into()),
            ("gcp.vertex.agent.llm_response", answer.into()),
            ("gen_ai.usage.input_tokens", 237.into()),
            ("gen_ai.usage.output_tokens", 16.into()),
        ];
        spans("nodejs", "call_llm", &list)
    };
    let usage = r#""usageMetadata":{"promptTokenCount":237,"candidatesTokenCount":16,"totalTokenCount":260,"thoughtsTokenCount":7,"cachedContentTokenCount":128}"#;
    let call = answer(&format!(
        r#"{{"content":{{"parts":[{{"text":"Yes."}}],"role":"model"}},{usage},"finishReason":"STOP"}}"#
    ));
    assert_eq!(
        (call.kind, call.status, tokens(&call)),
        (StepKind::Llm, StepStatus::Success, [Some(237), Some(128), None, Some(23), Some(7)])
    );
    assert_eq!(answer(&format!(r#"{{{usage},"finishReason":"STOP","partial":false}}"#)).status, StepStatus::Success);
    let part = r#"{"content":{"parts":[{"text":"Ye"}]},"partial":true,"usageMetadata":{"promptTokenCount":237}}"#;
    assert_eq!(answer(part).status, StepStatus::Cancelled);
    let silent = |language, name: &str| {
        let facts = spans(language, name, &[]);
        (facts.kind, facts.status, facts.tool_name)
    };
    assert_eq!(silent("nodejs", "call_llm"), (StepKind::Llm, StepStatus::Error, None));
    assert_eq!(silent("nodejs", "execute_tool book"), (StepKind::Tool, StepStatus::Error, Some("book".to_owned())));
    assert_eq!(silent("python", "call_llm").1, StepStatus::Success);
}

#[test]
fn a_loop_of_tanstack_is_an_agent_with_the_sum_of_its_calls() {
    let list = |more: &[(&'static str, Value)]| {
        let list = [
            ("gen_ai.system", Value::from("anthropic")),
            ("gen_ai.request.model", "claude-sonnet-4-5".into()),
            ("langfuse.trace.input", "[]".into()),
        ];
        [&list, more].concat()
    };
    let sum = [("tanstack.ai.iterations", Value::Int(2)), ("gen_ai.usage.input_tokens", 1_600.into())];
    assert_eq!(told("my-app", "chat claude-sonnet-4-5", &list(&sum)).kind, StepKind::Agent);
    // One that failed has no count of its rounds.
    assert_eq!(told("my-app", "chat claude-sonnet-4-5", &list(&[])).kind, StepKind::Agent);
    // A call of a program that writes for Langfuse.
    let own = [("gen_ai.operation.name", Value::from("chat"))];
    assert_eq!(told("my-app", "chat claude-sonnet-4-5", &list(&own)).kind, StepKind::Llm);
    let call = told(
        "my-app",
        "chat claude-sonnet-4-5 #0",
        &[
            ("gen_ai.system", "anthropic".into()),
            ("gen_ai.operation.name", "chat".into()),
            ("tanstack.ai.iteration", Value::Int(0)),
            ("gen_ai.usage.input_tokens", 933.into()),
            ("gen_ai.usage.cache_read.input_tokens", 128.into()),
            ("gen_ai.usage.output_tokens", 80.into()),
        ],
    );
    assert_eq!((call.kind, tokens(&call)[0]), (StepKind::Llm, Some(1_061)));
}

/// `@mastra/otel-exporter` 0.3.3 with `@mastra/core` 0.24.9, run against a scripted server.
#[test]
fn mastras_exporter_of_before_has_names_of_its_own() {
    let step = |name: &str, kind: &str, more: &[(&str, Value)]| {
        told("@mastra/otel", name, &[&[("mastra.span.type", Value::from(kind))], more].concat())
    };
    let agent = step(
        "agent.ocplanner",
        "agent_run",
        &[("gen_ai.agent.id", "ocplanner".into()), ("sessionId", "s1".into()), ("input", "weather?".into())],
    );
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("ocplanner")));
    assert_eq!((agent.session_id.as_deref(), agent.content.input.is_some()), (Some("s1"), true));
    let tool = step(
        "tool.execute get_weather",
        "tool_call",
        &[
            ("gen_ai.operation.name", "tool.execute".into()),
            ("gen_ai.tool.name", "get_weather".into()),
            ("gen_ai.tool.input", r#"{"city":"Paris"}"#.into()),
            ("output", "sunny".into()),
        ],
    );
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    assert!(tool.content.tool_args.is_some() && tool.content.tool_result.is_some());
    let call = |more: &[(&str, Value)]| {
        let list = [("gen_ai.operation.name", "chat".into()), ("gen_ai.usage.input_tokens", Value::Int(822))];
        step("chat gpt-4o-mini", "model_generation", &[&list, more].concat())
    };
    let cached =
        call(&[("gen_ai.usage.output_tokens", Value::Int(78)), ("gen_ai.usage.cached_input_tokens", Value::Int(640))]);
    assert_eq!((cached.kind, tokens(&cached)), (StepKind::Llm, [Some(822), Some(640), None, Some(78), None]));
    assert_eq!(call(&[("gen_ai.response.finish_reasons", "error".into())]).status, StepStatus::Error);
}

/// `openlit` 1.15 for JavaScript sets up the process in which `@anthropic-ai/sdk` traces itself; its own calls have the provider's counts.
#[test]
fn a_library_s_own_scope_says_more_than_who_set_up_the_process() {
    let call = |scope: &str, input: i64| {
        let mut record = ended(&[
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", "anthropic".into()),
            ("gen_ai.request.model", "claude-sonnet-4-5".into()),
            ("gen_ai.response.id", "msg_25".into()),
            ("gen_ai.usage.input_tokens", Value::Int(input)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(128)),
            ("gen_ai.usage.cache_creation.input_tokens", Value::Int(64)),
            ("gen_ai.usage.output_tokens", Value::Int(95)),
        ]);
        record.scope.name = scope.to_owned();
        record.resource = Arc::new(Resource {
            attributes: attributes(&[("telemetry.sdk.name", "openlit".into())]),
            ..Resource::default()
        });
        tokens(&facts(&record))
    };
    let all = [Some(1125), Some(128), Some(64), Some(95), None];
    assert_eq!(call("com.anthropic.sdk.typescript", 1125), all);
    assert_eq!(call("@openlit/instrumentation-anthropic", 933), all);
    assert_eq!(call("my-program", 933), all);
}

/// `@mastra/core` 0.23, run against a scripted server.
#[test]
fn mastra_of_before_has_a_span_for_each_method_and_its_calls_in_a_workflow() {
    let of = |name: &str, list: &[(&str, Value)]| {
        let mut whole = vec![("componentName", "planner".into())];
        whole.extend(list.iter().map(|(key, value)| (*key, value.clone())));
        told("default-tracer", name, &whole)
    };
    let call = |provider: &str, usage: &str, metadata: &str| {
        let result = format!(
            r#"{{"stepResult":{{"reason":"stop"}},"metadata":{{"id":"m-1","modelId":"model-1","modelMetadata":{{"modelId":"model",
                "modelProvider":"{provider}"}},"providerMetadata":{metadata},"request":{{"body":{{"messages":[{{"role":"user","content":"hi"}}]}}}}}},
                "output":{{"text":"sunny","toolCalls":[],"usage":{usage}}}}}"#
        );
        of(
            "workflow.executionWorkflow.step.llm-execution",
            &[("workflow.executionWorkflow.step.llm-execution.result", result.into())],
        )
    };
    let openai =
        r#"{"inputTokens":237,"outputTokens":23,"totalTokens":260,"reasoningTokens":7,"cachedInputTokens":128}"#;
    let openai = call("openai.chat", openai, r#"{"openai":{"acceptedPredictionTokens":0}}"#);
    assert_eq!(tokens(&openai), [Some(237), Some(128), None, Some(23), Some(7)]);
    assert_eq!((openai.kind, openai.status), (StepKind::Llm, StepStatus::Success));
    assert_eq!((openai.provider.as_deref(), openai.request_model.as_deref()), (Some("openai"), Some("model")));
    assert_eq!((openai.response_model.as_deref(), openai.response_id.as_deref()), (Some("model-1"), Some("m-1")));
    assert_eq!(openai.content.input.as_ref().map(|text| text.as_str()), Some(r#"[{"role":"user","content":"hi"}]"#));
    let usage = r#"{"inputTokens":711,"outputTokens":77,"totalTokens":788,"cachedInputTokens":128}"#;
    let reported = r#"{"anthropic":{"usage":{"input_tokens":711,"cache_creation_input_tokens":64,"cache_read_input_tokens":128,"output_tokens":77}}}"#;
    let anthropic = call("anthropic.messages", usage, reported);
    assert_eq!(tokens(&anthropic), [Some(903), Some(128), Some(64), Some(77), None]);

    let failed = r#"{"stepResult":{"reason":"error"},"metadata":{"modelId":"model"},"output":{"usage":{},"steps":[{"usage":{"inputTokens":1}}]}}"#;
    let failed = of(
        "workflow.executionWorkflow.step.llm-execution",
        &[("workflow.executionWorkflow.step.llm-execution.result", failed.into())],
    );
    assert_eq!((failed.kind, failed.status, failed.tokens), (StepKind::Llm, StepStatus::Error, None));

    let tool = |result: &str| {
        of(
            "mastra.stream.toolCall",
            &[
                ("mastra.operationId", "mastra.stream.toolCall".into()),
                ("stream.toolCall.toolName", "get_weather".into()),
                ("stream.toolCall.toolCallId", "call_1".into()),
                ("stream.toolCall.args", r#"{"city":"Paris"}"#.into()),
                ("stream.toolCall.result", result.into()),
            ],
        )
    };
    let well = tool(r#""sunny""#);
    assert_eq!((well.kind, well.status), (StepKind::Tool, StepStatus::Success));
    assert_eq!((well.tool_name.as_deref(), well.tool_call_id.as_deref()), (Some("get_weather"), Some("call_1")));
    assert_eq!(well.content.output.as_ref().map(|text| text.as_str()), Some(r#""sunny""#));
    let broken = tool(r#"{"message":"station is down","code":"TOOL_EXECUTION_FAILED"}"#);
    assert_eq!(broken.error.and_then(|error| error.message).as_deref(), Some("station is down"));

    let options = r#"{"maxSteps":5,"threadId":"th-1","resourceId":"u1"}"#;
    let agent = |list: &[(&str, Value)]| {
        let mut whole = vec![("agent.generate.argument.1", options.into())];
        whole.extend(list.iter().map(|(key, value)| (*key, value.clone())));
        of("agent.generate", &whole)
    };
    let well = agent(&[("agent.generate.result", r#"{"text":"sunny"}"#.into())]);
    assert_eq!((well.kind, well.status), (StepKind::Agent, StepStatus::Success));
    assert_eq!(well.agent_name.as_deref(), Some("planner"));
    assert_eq!((well.session_id.as_deref(), well.user_id.as_deref()), (Some("th-1"), Some("u1")));
    assert_eq!(agent(&[]).status, StepStatus::Error);
    // One that gives a thread its title has no result under the name of another.
    let title = "agent.generateTitleFromUserMessage";
    let title = of(title, &[("agent.generateTitleFromUserMessage.argument.0", "{}".into())]);
    assert_eq!(title.status, StepStatus::Success);
    let run = [("runId", "r-1".into())];
    let workflow = of("workflow.planner.execute", &run);
    assert_eq!((workflow.kind, workflow.workflow_name.as_deref()), (StepKind::Workflow, Some("planner")));
    let list = [("componentName", "agentic-loop".into()), ("runId", "r-1".into())];
    let own_loop = told("default-tracer", "workflow.agentic-loop.execute", &list);
    assert_eq!((own_loop.kind, own_loop.workflow_name), (StepKind::Task, None));
    // Another's component, whatever it executes.
    for name in ["agent.execute", "workflow.job.execute", "agent.generate"] {
        assert!(!of(name, &run).is_genai, "{name}");
    }
    assert!(!of("agent.execute", &[("agent.execute.argument.0", "{}".into())]).is_genai);
    // It has what the last call used, once more.
    let last = [("mastra.operationId", "mastra.stream".into()), ("stream.usage.inputTokens", Value::Int(311))];
    assert_eq!(of("mastra.stream", &last).tokens, None);
    assert!(!of("agent.convertTools", &[]).is_genai);
}

/// `@langwatch/observability` 0.16, run against a scripted server.
#[test]
fn langwatch_has_the_metadata_of_langchain_under_two_names() {
    let of = |name: &str, list: &[(&str, Value)]| {
        let list = [&[("langwatch.span.type", "chain".into())], list].concat();
        told("langwatch.instrumentation.langchain", name, &list)
    };
    let names = [
        ("langwatch.langgraph.thread_id", "th-2".into()),
        ("langwatch.langgraph.lc_agent_name", "planner".into()),
        ("langwatch.langchain.run.metadata.user_id", "u2".into()),
    ];
    let agent = of("planner", &names);
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("planner")));
    assert_eq!((agent.session_id.as_deref(), agent.user_id.as_deref()), (Some("th-2"), Some("u2")));
    assert_eq!(of("model_request", &names).kind, StepKind::Task);
}

/// Streams of OpenInference's Bedrock and all calls of Ax, run against a scripted server.
#[test]
fn a_total_tells_what_an_input_without_cached_tokens_has_missed() {
    let call = |provider: &str, model: &str, counts: [i64; 3], more: &[(&str, Value)]| {
        let list = [
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", provider.into()),
            ("gen_ai.request.model", model.into()),
            ("gen_ai.usage.input_tokens", counts[0].into()),
            ("gen_ai.usage.output_tokens", counts[1].into()),
            ("gen_ai.usage.total_tokens", counts[2].into()),
        ];
        tokens(&told("ax", "AI Chat Request", &[&list, more].concat()))
    };
    let [bedrock, openai] = [[1599, 149, 1940], [109, 23, 260]];
    assert_eq!(call("aws.bedrock", "us.anthropic.claude", bedrock, &[]), [Some(1791), None, None, Some(149), None]);
    assert_eq!(call("openai", "gpt-4o-mini", openai, &[]), [Some(237), None, None, Some(23), None]);
    // Other makers' totals have thoughts.
    assert_eq!(call("openai", "grok-4", openai, &[]), [Some(109), None, None, Some(23), None]);
    assert_eq!(call("gcp.gemini", "gemini-2.5-flash", openai, &[]), [Some(109), None, None, Some(151), Some(128)]);
    // It is told what the total has more.
    let thought = [("gen_ai.usage.reasoning.output_tokens", Value::Int(128))];
    assert_eq!(call("openai", "gpt-5-mini", openai, &thought)[0], Some(109));
    for read in [64, 0] {
        let read = [("gen_ai.usage.cache_read.input_tokens", Value::Int(read))];
        assert_eq!(call("openai", "gpt-4o-mini", openai, &read)[0], Some(109));
    }
    let none = [("my.cached_tokens", Value::Int(0))];
    assert_eq!(call("openai", "gpt-4o-mini", openai, &none)[0], Some(109));
    // Who made them may have left out something else.
    for model in ["gpt-oss-120b", "gpt-4o-audio-preview", "gpt-4o-realtime", "gpt-4o-transcribe", "gpt-4o-mini-tts"] {
        assert_eq!(call("openai", model, openai, &[])[0], Some(109), "{model}");
    }
    assert_eq!(call("aws.bedrock", "openai.gpt-oss-120b-1:0", openai, &[])[0], Some(109));
}

/// How much of what a total tells besides was cached is not known, and so is what it cost.
#[test]
fn what_a_total_tells_besides_has_no_known_price() {
    let cost = |total: i64, more: &[(&str, Value)]| {
        let list = [
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", "openai".into()),
            ("gen_ai.request.model", "gpt-4o-mini".into()),
            ("gen_ai.usage.input_tokens", Value::Int(109)),
            ("gen_ai.usage.output_tokens", Value::Int(23)),
            ("gen_ai.usage.total_tokens", total.into()),
        ];
        let mut record = ended(&[&list, more].concat());
        normalize(&mut record);
        crate::pipeline::cost::Pricer::new().price(&mut record);
        let step = StepFacts::of(&record.span, None, None);
        (step.tokens.and_then(|tokens| tokens.prompt), step.cost.map(|(cost, _)| cost.as_usd()))
    };
    assert!(matches!(cost(132, &[]), (Some(109), Some(_))));
    assert_eq!(cost(260, &[]), (Some(237), None));
    assert_eq!(cost(260, &[("gen_ai.usage.cost", 0.5.into())]), (Some(237), Some(0.5)));
}

/// `@arizeai/openinference-instrumentation-bedrock` 0.5.1, run against a scripted server.
#[test]
fn openinference_has_the_maker_in_the_place_of_a_model_of_bedrock_s() {
    let model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
    let call = |provider: &str, model: &str, input: &str| {
        let list = [
            ("openinference.span.kind", "LLM".into()),
            ("llm.provider", provider.into()),
            ("llm.model_name", model.into()),
            ("input.value", input.into()),
        ];
        told("@arizeai/openinference-instrumentation-bedrock", "bedrock.converse", &list).request_model
    };
    let request = format!(r#"{{"modelId":"{model}","messages":[]}}"#);
    assert_eq!(call("aws", "anthropic", &request).as_deref(), Some(model));
    assert_eq!(call("aws", "anthropic", "{}"), None);
    // A model of that name.
    assert_eq!(call("ollama", "mistral", "{}").as_deref(), Some("mistral"));
}

/// Ax (`@ax-llm/ax`), `@effect/ai` and Langfuse 4 with LangChain, run against a scripted server.
#[test]
fn a_tool_is_known_by_the_id_of_its_call() {
    let ids = |step: &StepFacts| (step.kind, step.tool_name.clone(), step.tool_call_id.clone());
    let known = |id: Option<&str>| (StepKind::Tool, Some("get_weather".to_owned()), id.map(str::to_owned));
    let list = [("tool.name", Value::from("get_weather")), ("tool.mode", "native".into())];
    let mut record = ended(&[&list[..], &[("function.id", "call_1".into())]].concat());
    record.span.events = vec![event("gen_ai.tool.message", &[("name", "get_weather".into())])];
    let ax = facts(&record);
    assert_eq!((ids(&ax), ax.content.input.is_none()), (known(Some("call_1")), true));
    // A name alone may be a label, and a step of another program has functions, too.
    assert_eq!(told("ax", "Tool: get_weather", &list).kind, StepKind::Task);
    let step = told("ci", "lint", &[("tool.name", "eslint".into()), ("function.id", "f-1".into())]);
    assert_eq!((step.kind, step.is_genai, step.tool_call_id), (StepKind::Task, false, None));
    // A call of a model may tell which tool it asks for.
    let asks = [
        ("tool.name", "get_weather".into()),
        ("gen_ai.tool.call.id", "call_1".into()),
        ("gen_ai.request.model", "gpt-4o-mini".into()),
    ];
    assert_eq!(told("any", "ask", &asks).kind, StepKind::Llm);
    assert_eq!(told("any", "ask", &asks[..2]).kind, StepKind::Tool);

    let effect = |sdk: &str, list: &[(&str, Value)]| {
        let mut record = ended(list);
        (record.span.name, record.scope.name) = ("Toolkit.handle".to_owned(), "my-service".to_owned());
        let attributes = attributes(&[("telemetry.sdk.name", sdk.into())]);
        record.resource = Arc::new(Resource { attributes, ..Resource::default() });
        facts(&record)
    };
    let list = [("tool", "get_weather".into()), ("parameters", r#"{"city":"Paris"}"#.into())];
    let own = effect("@effect/opentelemetry", &list);
    assert_eq!(ids(&own), known(None));
    assert_eq!(own.content.input.as_ref().map(|text| text.as_str()), Some(r#"{"city":"Paris"}"#));
    assert!(!effect("opentelemetry", &list).is_genai);
    assert!(!effect("@effect/opentelemetry", &list[..1]).is_genai);

    let answer = r#"{"lc":1,"type":"constructor","id":["langchain_core","messages","ToolMessage"],
        "kwargs":{"status":"success","content":"sunny","tool_call_id":"call_1","name":"get_weather"}}"#;
    let list = [("langfuse.observation.type", "span".into()), ("langfuse.observation.output", answer.into())];
    assert_eq!(ids(&told("langfuse-sdk", "get_weather", &list)), known(Some("call_1")));
    // What is around it.
    assert_eq!(told("langfuse-sdk", "tools", &list).kind, StepKind::Task);
}

#[test]
fn who_was_stopped_or_waits_for_a_person_has_not_failed() {
    // Langfuse 5.11 with LangChain 1.5.
    let langfuse = |message: &str| {
        let list = [
            ("langfuse.observation.type", "agent".into()),
            ("langfuse.observation.level", "ERROR".into()),
            ("langfuse.observation.status_message", message.into()),
        ];
        told("langfuse-sdk", "agent", &list).status
    };
    assert_eq!(langfuse("Error: Abort"), StepStatus::Cancelled);
    assert_eq!(langfuse("Error: About to fail"), StepStatus::Error);
    // Genkit 1.42, which has the status of an answer for a class.
    let genkit = |class: &str, message: &str| {
        let list = [("genkit:type", "action".into()), ("genkit:metadata:subtype", "tool".into())];
        let mut record = ended(&[&list[..], &[("genkit:state", "error".into())]].concat());
        let told = [("exception.type", class.into()), ("exception.message", message.into())];
        record.span.events = vec![event("exception", &told)];
        record.span.status = Some(Status { code: 2, message: message.to_owned() });
        facts(&record).status
    };
    assert_eq!(genkit("500", "UNKNOWN: Request was aborted."), StepStatus::Cancelled);
    assert_eq!(genkit("409", "ABORTED: Request aborted when reading from the stream"), StepStatus::Cancelled);
    assert_eq!(genkit("504", "DEADLINE_EXCEEDED: no answer"), StepStatus::Timeout);
    assert_eq!(genkit("400", "INVALID_ARGUMENT: timeout must be a number"), StepStatus::Error);
    assert_eq!(genkit("ToolInterruptError", ""), StepStatus::Success);
}

/// `@mastra/otel-exporter` 0.3.3 with `@mastra/core` 0.24.9, and `@voltagent/core` 1.5.2, both with the AI SDK 5: of Anthropic's models
/// cached tokens are left out, and what was written to a cache is told nowhere.
#[test]
fn what_the_ai_sdk_5_leaves_out_of_claudes_input_makes_it_unknown() {
    let mastra = |system: &str, input: i64, cached: i64| {
        let list = [
            ("mastra.span.type", Value::from("model_generation")),
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.system", system.into()),
            ("gen_ai.usage.input_tokens", Value::Int(input)),
            ("gen_ai.usage.cached_input_tokens", Value::Int(cached)),
            ("gen_ai.usage.output_tokens", Value::Int(94)),
            ("gen_ai.usage.total_tokens", Value::Int(input + 94)),
        ];
        tokens(&told("@mastra/otel", "chat", &list))
    };
    assert_eq!(mastra("anthropic.messages", 331, 161), [None, Some(161), None, Some(94), None]);
    // More than there is beside it, which alone would add up.
    assert_eq!(mastra("anthropic.messages", 31, 161), [None, Some(161), None, Some(94), None]);
    assert_eq!(mastra("anthropic.messages", 331, 0), [Some(331), Some(0), None, Some(94), None]);
    assert_eq!(mastra("openai.chat", 532, 161), [Some(532), Some(161), None, Some(94), None]);
    let voltagent = |model: &str, input: i64, reasoning: Option<i64>| {
        let mut list = vec![
            ("entity.type", Value::from("agent")),
            ("ai.model.name", model.into()),
            ("usage.prompt_tokens", Value::Int(input)),
            ("usage.cached_tokens", Value::Int(161)),
            ("usage.completion_tokens", Value::Int(94)),
        ];
        list.extend(reasoning.map(|count| ("usage.reasoning_tokens", Value::Int(count))));
        tokens(&told("@voltagent/core", "weather_agent", &list))
    };
    assert_eq!(voltagent("claude-sonnet-4-5", 331, None), [None, Some(161), None, Some(94), None]);
    // Version 2, and another model.
    assert_eq!(voltagent("claude-sonnet-4-5", 532, Some(0)), [Some(532), Some(161), None, Some(94), Some(0)]);
    assert_eq!(voltagent("gpt-5-mini", 532, Some(41)), [Some(532), Some(161), None, Some(94), Some(41)]);
    assert_eq!(voltagent("gemini-2.5-flash", 532, None), [Some(532), Some(161), None, Some(94), None]);
}

/// `axiom` 0.52.2.
#[test]
fn what_a_tool_was_given_and_gave_has_names_of_axioms_own() {
    let tool = told(
        "axiom",
        "execute_tool get_weather",
        &[
            ("gen_ai.operation.name", "execute_tool".into()),
            ("gen_ai.tool.name", "get_weather".into()),
            ("gen_ai.tool.arguments", r#"{"city":"Paris"}"#.into()),
            ("gen_ai.tool.message", r#""18""#.into()),
        ],
    );
    assert_eq!(tool.content.tool_args, Some(serde_json::json!({"city": "Paris"}).into()));
    assert!(tool.content.tool_result.is_some());
}

/// `@traceloop/node-server-sdk` 0.22.8 with `ai` 5.0 and 6.0.20 over Anthropic, whose metadata it takes away, and the reason for the end.
#[test]
fn what_traceloops_sdk_leaves_of_the_ai_sdk_is_read_by_the_version_that_it_tells() {
    let call = |version: &str, operation: &str, more: &[(&str, i64)]| {
        let mut list = vec![
            ("ai.operationId", Value::from(operation)),
            ("ai.sdk.version", version.into()),
            ("gen_ai.system", "Anthropic".into()),
            ("gen_ai.provider.name", "anthropic".into()),
            ("gen_ai.request.model", "claude-sonnet-4-5".into()),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
            ("gen_ai.usage.cache_creation_input_tokens", Value::Int(16)),
        ];
        list.extend(more.iter().map(|(key, count)| (*key, Value::Int(*count))));
        tokens(&told("ai", "text.stream", &list))
    };
    let stream = "ai.streamText.doStream";
    let read = ("ai.usage.cachedInputTokens", 64);
    let all = [Some(211), Some(64), Some(16), Some(37), None];
    assert_eq!(call("5.0.0", stream, &[("gen_ai.usage.input_tokens", 131), read]), all);
    assert_eq!(call("6.0.20", stream, &[("gen_ai.usage.input_tokens", 211), read]), all);
    // What was read from a cache is told of streams alone.
    let whole = "ai.generateText.doGenerate";
    let total = ("llm.usage.total_tokens", 168);
    assert_eq!(
        call("5.0.0", whole, &[("gen_ai.usage.input_tokens", 131), total]),
        [None, None, Some(16), Some(37), None]
    );
    assert_eq!(
        call("6.0.20", whole, &[("gen_ai.usage.input_tokens", 211)]),
        [Some(211), None, Some(16), Some(37), None]
    );
    // Around several calls there is what the last one wrote to a cache.
    let around = "ai.streamText";
    let sums = |input: i64| [("ai.usage.inputTokens", input), ("ai.usage.cachedInputTokens", 161)];
    assert_eq!(call("5.0.0", around, &sums(331)), [None, Some(161), None, Some(37), None]);
    assert_eq!(call("6.0.20", around, &sums(532)), [Some(532), Some(161), None, Some(37), None]);

    let reason = |reason: &str| {
        let reasons = Value::Array(ArrayValue { values: vec![Value::from(reason).into()] });
        let list = [
            ("ai.operationId", "ai.streamText.doStream".into()),
            ("ai.response.msToFirstChunk", Value::Double(17.1)),
            ("gen_ai.response.finish_reasons", reasons),
        ];
        of_ai_sdk("ai", &list, (0, ""), false).status
    };
    assert_eq!((reason("error"), reason("stop")), (StepStatus::Error, StepStatus::Success));
}

/// `@traceloop/node-server-sdk` 0.19.0 with `ai` 5.0.
#[test]
fn traceloops_sdk_has_session_user_and_what_tools_were_given_under_names_of_its_own() {
    let tool = told(
        "ai",
        "get_weather.tool",
        &[
            ("ai.operationId", "ai.toolCall".into()),
            ("ai.toolCall.name", "get_weather".into()),
            ("traceloop.entity.input", r#"{"city":"Paris"}"#.into()),
            ("traceloop.entity.output", r#""18 C""#.into()),
            ("traceloop.association.properties.sessionId", "s-1".into()),
            ("traceloop.association.properties.userId", "u-1".into()),
        ],
    );
    assert_eq!(tool.kind, StepKind::Tool);
    assert_eq!(tool.content.tool_args, Some(serde_json::json!({"city": "Paris"}).into()));
    assert!(tool.content.tool_result.is_some());
    assert_eq!((tool.session_id.as_deref(), tool.user_id.as_deref()), (Some("s-1"), Some("u-1")));
}

/// `@mastra/otel-exporter` 1.0.0 with `@mastra/core` 1.0.4, over OpenAI and Anthropic, and `@mastra/arize` 1.0.2.
#[test]
fn the_first_of_mastras_exporters_has_cached_tokens_and_agents_under_other_names() {
    let call = |provider: &str, input: i64, more: Option<(&str, Value)>| {
        let mut list = vec![
            ("mastra.span.type", Value::from("model_generation")),
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", provider.into()),
            ("gen_ai.usage.input_tokens", Value::Int(input)),
            ("gen_ai.usage.cached_input_tokens", Value::Int(161)),
            ("gen_ai.usage.output_tokens", Value::Int(94)),
        ];
        list.extend(more);
        tokens(&told("@mastra/otel-exporter", "chat", &list))
    };
    assert_eq!(call("openai.chat", 532, None), [Some(532), Some(161), None, Some(94), None]);
    // 331 without cached tokens, 161 that were read and 40 that were written, and the 24 of the last call once more.
    let written = ("gen_ai.usage.cache_write_tokens", Value::Int(24));
    assert_eq!(call("anthropic.messages", 556, Some(written)), [None, Some(161), None, Some(94), None]);
    let arize = told(
        "@mastra/otel-exporter",
        "invoke_agent weather_agent",
        &[("openinference.span.kind", "AGENT".into()), ("mastra.span.type", "agent_run".into())],
    );
    assert_eq!((arize.kind, arize.agent_name.as_deref()), (StepKind::Agent, Some("weather_agent")));
}

/// `@mastra/core` 0.16.4 with the AI SDK 5: `generateVNext` and `streamVNext`.
#[test]
fn a_loop_of_mastras_next_generation_tells_its_first_call_and_the_sum() {
    let of = |name: &str, list: &[(&str, Value)]| {
        let whole = [&[("componentName", Value::from("planner"))], list].concat();
        told("default-tracer", name, &whole)
    };
    let call = |more: &[(&str, Value)]| {
        let list = [
            ("mastra.operationId", "mastra.stream.aisdk.doStream".into()),
            ("operation.name", Value::from("mastra.stream.aisdk.doStream")),
            ("aisdk.model.provider", "openai.chat".into()),
            ("aisdk.model.id", "gpt-5-mini".into()),
        ];
        of("mastra.stream.aisdk.doStream", &[&list, more].concat())
    };
    let well = call(&[]);
    assert_eq!((well.kind, well.status, well.tokens), (StepKind::Llm, StepStatus::Success, None));
    assert_eq!((well.provider.as_deref(), well.request_model.as_deref()), (Some("openai"), Some("gpt-5-mini")));
    assert_eq!(call(&[("stream.response.finishReason", "error".into())]).status, StepStatus::Error);
    // Around all calls of the loop stands what the last of them used.
    let around = [("operation.name", "mastra.stream".into()), ("aisdk.model.id", "gpt-5-mini".into())];
    assert!(!of("mastra.stream", &around).billed);

    let agent = |provider: &str, more: &[(&str, Value)]| {
        let result = format!(
            r#"{{"text":"sunny","usage":{{"inputTokens":532,"outputTokens":94,"totalTokens":626,"reasoningTokens":41,"cachedInputTokens":161}},
                "providerMetadata":{{"{provider}":{{}}}},"request":{{"body":{{"model":"model"}}}},"response":{{"modelId":"model-1"}}}}"#
        );
        let list = [
            ("agent.generateVNext.argument.0", r#""weather?""#.into()),
            ("agent.generateVNext.argument.1", r#"{"threadId":"th-1","resourceId":"u-1"}"#.into()),
            ("agent.generateVNext.result", result.into()),
        ];
        of("agent.generateVNext", &[&list, more].concat())
    };
    let openai = agent("openai", &[]);
    assert_eq!(tokens(&openai), [Some(532), Some(161), None, Some(94), Some(41)]);
    assert_eq!((openai.kind, openai.tells_own_use, openai.status), (StepKind::Agent, true, StepStatus::Success));
    assert_eq!((openai.request_model.as_deref(), openai.response_model.as_deref()), (Some("model"), Some("model-1")));
    assert_eq!((openai.agent_name.as_deref(), openai.session_id.as_deref()), (Some("planner"), Some("th-1")));
    assert!(openai.content.input.is_some() && openai.content.output.is_some());
    assert_eq!(tokens(&agent("anthropic", &[])), [None, Some(161), None, Some(94), Some(41)]);
    // Below a workflow it bears the name of that.
    assert_eq!(agent("openai", &[("runId", "r-1".into())]).agent_name, None);
}
