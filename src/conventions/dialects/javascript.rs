//! Frameworks for JavaScript that trace themselves.

use super::Shape::{Count, Model, Provider, Text, Words};
use super::Source::{Before, Behind, Beside, Between, Json, Key, Lacking, Parts, Served, Uncounted, Where};
use super::platforms::LANGFUSE;
use super::standard::FINISHED_BY_ERROR;
use super::{
    ALL_INCLUSIVE, Basis, BasisRow, COUNT_IN_STREAMS, Detect, Dialect, Outcome, PLAIN, SPAN_NAME, Said, Side, Source,
    Test, Untold, content, kind, row,
};
use crate::conventions::names;
use crate::model::{StepKind, StepStatus};

/// Vercel's AI SDK, legacy names (scope `ai`).
///
/// Source: `vercel/ai` packages/otel, 2026-08-22. The outer `ai.generateText` repeats the usage of the `.doGenerate`
/// spans below it, so it is an agent's.
pub const VERCEL: Dialect = Dialect {
    name: "vercel-ai",
    detect: &[Detect::Key("ai.operationId"), Detect::Scope("ai")],
    facts: &[
        row(names::PROVIDER, &[Key("ai.model.provider")], Provider),
        row(names::REQUEST_MODEL, &[Key("ai.model.id")], Model),
        row(names::RESPONSE_MODEL, &[Key("ai.response.model")], Model),
        row(names::RESPONSE_ID, &[Key("ai.response.id")], Text),
        row(names::FINISH_REASONS, &[Key("ai.response.finishReason")], Words),
        row(
            names::INPUT_TOKENS,
            &[Key("ai.usage.inputTokens"), Key("ai.usage.promptTokens"), Key("ai.usage.tokens")],
            Count,
        ),
        row(names::OUTPUT_TOKENS, &[Key("ai.usage.outputTokens"), Key("ai.usage.completionTokens")], Count),
        row(names::TOTAL_TOKENS, &[Key("ai.usage.totalTokens")], Count),
        row(
            names::CACHE_READ_TOKENS,
            &[Key("ai.usage.inputTokenDetails.cacheReadTokens"), Key("ai.usage.cachedInputTokens")],
            Count,
        ),
        row(names::CACHE_WRITE_TOKENS, &[Key("ai.usage.inputTokenDetails.cacheWriteTokens")], Count),
        row(
            names::REASONING_TOKENS,
            &[Key("ai.usage.outputTokenDetails.reasoningTokens"), Key("ai.usage.reasoningTokens")],
            Count,
        ),
        row(names::TOOL_NAME, &[Key("ai.toolCall.name")], Text),
        row(names::TOOL_CALL_ID, &[Key("ai.toolCall.id")], Text),
        row(names::AGENT_NAME, &[Key("ai.telemetry.functionId")], Text),
    ],
    content: &[
        content(
            Side::In,
            &[
                Key("ai.prompt.messages"),
                Key("ai.toolCall.args"),
                // As Traceloop's SDK renames it (0.19).
                Where("ai.operationId", "ai.toolCall", &Key("traceloop.entity.input")),
                Key("ai.prompt"),
                Key("ai.values"),
                Key("ai.value"),
            ],
        ),
        content(
            Side::Out,
            &[
                Key("ai.toolCall.result"),
                Where("ai.operationId", "ai.toolCall", &Key("traceloop.entity.output")),
                Parts(&[
                    (Said::Reasoning, "ai.response.reasoning"),
                    (Said::Text, "ai.response.text"),
                    (Said::Text, "ai.response.object"),
                    (Said::ToolCalls, "ai.response.toolCalls"),
                ]),
            ],
        ),
    ],
    usage: VERCEL_REPORTED,
    kinds: &[
        kind("ai.operationId", Test::Is("ai.toolCall"), StepKind::Tool),
        kind("ai.operationId", Test::Ends(".doGenerate"), StepKind::Llm),
        kind("ai.operationId", Test::Ends(".doStream"), StepKind::Llm),
        kind("ai.operationId", Test::Ends(".doEmbed"), StepKind::Embedding),
        kind("ai.operationId", Test::Is("ai.rerank"), StepKind::Rerank),
        kind("ai.operationId", Test::Is("ai.generateText"), StepKind::Agent),
        kind("ai.operationId", Test::Is("ai.streamText"), StepKind::Agent),
        kind("ai.operationId", Test::Is("ai.generateObject"), StepKind::Agent),
        kind("ai.operationId", Test::Is("ai.streamObject"), StepKind::Agent),
        kind("ai.operationId", Test::Present, StepKind::Task),
    ],
    outcomes: &[
        Outcome { from: Key("ai.response.finishReason"), word: "error", status: StepStatus::Error, message: &[] },
        // Where Traceloop's SDK took that away (0.22).
        FINISHED_BY_ERROR,
        Outcome { from: VERCEL_LEFT, word: "unknown", status: StepStatus::Cancelled, message: &[] },
        Outcome { from: VERCEL_LEFT, word: "other", status: StepStatus::Cancelled, message: &[] },
        Outcome { from: VERCEL_BROKE_OFF, word: "unknown", status: StepStatus::Cancelled, message: &[] },
        Outcome { from: VERCEL_BROKE_OFF, word: "other", status: StepStatus::Cancelled, message: &[] },
    ],
    // A stream that the program aborts: what is around its calls ends without a word, and so do they, if ever (AI SDK 7).
    cancelled_without_response: &["chat", "invoke_agent"],
    fails_by_exception: true,
    ..PLAIN
};

/// The same as Traceloop's SDK leaves it, which tells the version and takes away what the provider reported. Of a call that was not
/// streamed it has no tokens read from a cache, and around several what the last of them wrote to one.
///
/// Source: `@traceloop/node-server-sdk` 0.22.8 with `ai` 5.0 over OpenAI and Anthropic, run against a scripted server.
pub const VERCEL_FIVE: Dialect = Dialect {
    name: "vercel-ai-5",
    variant_of: "vercel-ai",
    detect: &[Detect::Value("ai.sdk.version", "5.")],
    untold: &[
        Untold {
            when: &[
                (names::PROVIDER, Test::IsWithout("anthropic", names::CACHE_READ_TOKENS)),
                (names::CACHE_WRITE_TOKENS, Test::Some),
            ],
            counts: WHOLE,
        },
        Untold {
            when: &[
                ("ai.operationId", Test::Is("ai.streamText")),
                (names::PROVIDER, Test::Is("anthropic")),
                (names::CACHE_WRITE_TOKENS, Test::Present),
            ],
            counts: WHOLE,
        },
        WRITTEN_BY_LAST_STREAMED,
        WRITTEN_BY_LAST,
    ],
    basis: EXCLUSIVE_WHERE_PROVIDERS_ARE,
    ..VERCEL
};

/// The same with version 6, which counts cached tokens in whatever the provider does.
///
/// Source: `@traceloop/node-server-sdk` 0.22.8 with `ai` 6.0.20 over Anthropic and Google, run against a scripted server.
pub const VERCEL_SIX: Dialect = Dialect {
    name: "vercel-ai-6",
    variant_of: "vercel-ai",
    detect: &[Detect::Value("ai.sdk.version", "6.")],
    untold: &[WRITTEN_BY_LAST_STREAMED, WRITTEN_BY_LAST],
    basis: ALL_INCLUSIVE,
    ..VERCEL
};

/// Around several calls Traceloop's SDK has what the last of them wrote to a cache.
const WRITTEN_BY_LAST: Untold = Untold {
    when: &[("ai.operationId", Test::Is("ai.generateText")), (names::CACHE_WRITE_TOKENS, Test::Present)],
    counts: &[names::CACHE_WRITE_TOKENS],
};

/// The same around streams.
const WRITTEN_BY_LAST_STREAMED: Untold = Untold {
    when: &[("ai.operationId", Test::Is("ai.streamText")), (names::CACHE_WRITE_TOKENS, Test::Present)],
    ..WRITTEN_BY_LAST
};

/// Why a stream of several calls ended whose end nobody read, as the program aborted it behind the first: in version 5 (5.0.277) `unknown`,
/// in 6 (6.0.5) `other`, and nothing of what all of them used. What the first one asked for stands there. One whose last call failed ends in the same words: that call tells it.
const VERCEL_LEFT: Source =
    Where("ai.operationId", "ai.streamText", &Beside("ai.response.toolCalls", &VERCEL_WITHOUT_USE));
const VERCEL_WITHOUT_USE: Source = Lacking(VERCEL_USED, &Key("ai.response.finishReason"));

/// Why the stream of one call ended that the server closed before its end, or in which an error came that the provider's package passes
/// over: the word for any reason that the AI SDK knows no other for. `ai` 6.0.326 tells no counts then, and all of 0 of xAI's answers.
const VERCEL_BROKE_OFF: Source =
    Beside("ai.response.msToFirstChunk", &Served(COUNT_IN_STREAMS, &Uncounted(&Key("ai.response.finishReason"))));

/// Where the AI SDK has what was used.
const VERCEL_USED: &[&str] = &[
    "ai.usage.inputTokens",
    "ai.usage.outputTokens",
    "ai.usage.totalTokens",
    "ai.usage.promptTokens",
    "ai.usage.completionTokens",
];

/// What the provider reported, of which the AI SDK's own names have less and, by version, mean another thing.
const VERCEL_REPORTED: &[Source] = &[
    Json("ai.response.providerMetadata", &["anthropic", "usage"]),
    Json("ai.response.providerMetadata", &["anthropic"]),
    Json("ai.response.providerMetadata", &["google", "usageMetadata"]),
    Json("ai.response.providerMetadata", &["vertex", "usageMetadata"]),
    Json("ai.response.providerMetadata", &["bedrock", "usage"]),
    Json("ai.response.providerMetadata", &["openai"]),
    Json("ai.response.providerMetadata", &["openrouter", "usage"]),
];

/// Vercel's AI SDK since 7, which writes the standard's names in a scope of its own.
///
/// Source: `@ai-sdk/otel` 1.0.173 with `ai` 7.0.173, run against a scripted server. An agent and its steps repeat the usage of
/// the calls. What is not of the standard is there where the program asks for it: `usage`, `providerMetadata`, `runtimeContext`.
pub const VERCEL_OTEL: Dialect = Dialect {
    name: "vercel-ai-otel",
    detect: &[Detect::Scope("gen_ai"), Detect::Scope("@ai-sdk/otel")],
    facts: &[
        // Behind a gateway, which is none.
        row(names::PROVIDER, &[Before(names::REQUEST_MODEL, "", '/')], Provider),
        row(names::REASONING_TOKENS, &[Key("ai.usage.outputTokenDetails.reasoningTokens")], Count),
        row(names::CONVERSATION_ID, &[Key("ai.settings.context.sessionId")], Text),
        row(names::USER_ID, &[Key("ai.settings.context.userId")], Text),
    ],
    usage: VERCEL_REPORTED,
    kinds: &[kind(names::OPERATION, Test::Is("ai.transcribe"), StepKind::Llm)],
    outcomes: &[
        FINISHED_BY_ERROR,
        Outcome { from: VERCEL_OTEL_BROKE_OFF, word: "other", status: StepStatus::Cancelled, message: &[] },
    ],
    basis: ALL_INCLUSIVE,
    cancelled_without_response: &["chat", "invoke_agent"],
    fails_by_exception: true,
    ..PLAIN
};

/// The same as [`VERCEL_BROKE_OFF`] in version 7.
const VERCEL_OTEL_BROKE_OFF: Source = Beside(
    "gen_ai.client.operation.time_to_first_chunk",
    &Served(COUNT_IN_STREAMS, &Uncounted(&Json(names::FINISH_REASONS, &["0"]))),
);

/// Mastra, by its exporter or its bridge: the standard's names, and what went in and out under its own.
///
/// Source: `@mastra/otel-exporter` 1.4 and `@mastra/otel-bridge` 1.5 with `@mastra/core` 1.71, run against a scripted server.
/// The bridge tells what a whole generation used, and of its calls nothing.
pub const MASTRA: Dialect = Dialect {
    name: "mastra",
    detect: &[Detect::KeyPrefix("mastra.")],
    // Arize's exporter has the metadata in one attribute.
    facts: &[
        // The first version of the exporter (1.0).
        row(names::CACHE_READ_TOKENS, &[Key("gen_ai.usage.cached_input_tokens")], Count),
        row(names::CONVERSATION_ID, &[Key("mastra.metadata.sessionId"), Json("metadata", &["sessionId"])], Text),
        row(
            names::USER_ID,
            &[
                Key("mastra.metadata.userId"),
                Key("mastra.metadata.resourceId"),
                Json("metadata", &["userId"]),
                Json("metadata", &["resourceId"]),
            ],
            Text,
        ),
    ],
    // That of a workflow alone has no attribute.
    entity: &[Behind("invoke_workflow ")],
    content: &[
        content(
            Side::In,
            &[
                Key("mastra.agent_run.input"),
                Key("mastra.workflow_run.input"),
                Key("mastra.workflow_step.input"),
                Key("mastra.model_step.input"),
                Key("mastra.model_generation.input"),
            ],
        ),
        content(
            Side::Out,
            &[
                Key("mastra.agent_run.output"),
                Key("mastra.workflow_run.output"),
                Key("mastra.workflow_step.output"),
                Key("mastra.model_step.output"),
                Key("mastra.model_generation.output"),
            ],
        ),
    ],
    kinds: &[
        kind("mastra.span.type", Test::Is("agent_run"), StepKind::Agent),
        kind("mastra.span.type", Test::Is("workflow_run"), StepKind::Workflow),
        kind("mastra.span.type", Test::Is("rag_embedding"), StepKind::Embedding),
        kind("mastra.span.type", Test::Is("rag_vector_operation"), StepKind::Retrieval),
        kind("mastra.span.type", Test::Is("scorer_run"), StepKind::Evaluator),
    ],
    outcomes: &[
        FINISHED_BY_ERROR,
        Outcome {
            from: Json("mastra.agent_run.output", &["status"]),
            word: "aborted",
            status: StepStatus::Cancelled,
            message: &[Json("mastra.agent_run.output", &["reason"])],
        },
    ],
    // Version 1.0 adds what was written to a cache once more, and tells of the last call alone how much that was.
    untold: &[Untold {
        when: &[("gen_ai.usage.cached_input_tokens", Test::Present), (names::CACHE_WRITE_TOKENS, Test::Some)],
        counts: &[names::INPUT_TOKENS, names::TOTAL_TOKENS, names::CACHE_WRITE_TOKENS],
    }],
    basis: ALL_INCLUSIVE,
    cancelled_without_response: &["chat"],
    ..PLAIN
};

/// Mastra's exporter of before, whose names for what went in and out, and for the conversation, are the program's own.
///
/// Source: `@mastra/otel-exporter` 0.3.3 with `@mastra/core` 0.24.9, run against a scripted server.
pub const MASTRA_BEFORE: Dialect = Dialect {
    name: "mastra-before",
    variant_of: "mastra",
    detect: &[Detect::Scope("@mastra/otel")],
    facts: &[
        row(names::AGENT_NAME, &[Key("gen_ai.agent.id")], Text),
        row(names::CONVERSATION_ID, &[Key("sessionId")], Text),
        row(names::USER_ID, &[Key("userId")], Text),
        row(names::CACHE_READ_TOKENS, &[Key("gen_ai.usage.cached_input_tokens")], Count),
    ],
    content: &[
        content(Side::In, &[Key("gen_ai.tool.input"), Key("input")]),
        content(Side::Out, &[Key("gen_ai.tool.output"), Key("output")]),
    ],
    kinds: &[
        kind("mastra.span.type", Test::Is("agent_run"), StepKind::Agent),
        kind("mastra.span.type", Test::Is("workflow_run"), StepKind::Workflow),
        kind("mastra.span.type", Test::Is("tool_call"), StepKind::Tool),
        kind("mastra.span.type", Test::Is("mcp_tool_call"), StepKind::Tool),
    ],
    outcomes: &[FINISHED_BY_ERROR],
    // As the AI SDK 5 counts: cached tokens are left out where the provider does so, and what was written to a cache is told nowhere.
    untold: &[
        Untold {
            when: &[(names::PROVIDER, Test::Is("anthropic")), (names::CACHE_READ_TOKENS, Test::Some)],
            counts: WHOLE,
        },
        Untold {
            when: &[(names::PROVIDER, Test::Is("aws.bedrock")), (names::CACHE_READ_TOKENS, Test::Some)],
            counts: WHOLE,
        },
    ],
    ..MASTRA
};

/// What cached tokens are a part of.
const WHOLE: &[&str] = &[names::INPUT_TOKENS, names::TOTAL_TOKENS];

/// As the AI SDK 5 counts: cached tokens are left out where the provider does so.
const EXCLUSIVE_WHERE_PROVIDERS_ARE: &[BasisRow] = &[
    BasisRow { provider: "anthropic", basis: Basis::Exclusive },
    BasisRow { provider: "aws.bedrock", basis: Basis::Exclusive },
    BasisRow { provider: "", basis: Basis::Inclusive },
];

/// Where a call of Mastra's own loop has what became of it.
const MASTRA_CALL: &str = "workflow.executionWorkflow.step.llm-execution.result";
/// The first call of a loop of `generateVNext` or `streamVNext`. It does not tell what it used, and those after it have no span.
const MASTRA_FIRST_CALL: &str = "mastra.stream.aisdk.doStream";
/// What all calls of such a loop used and the last of them answered, where it is not streamed.
const MASTRA_LOOP: &str = "agent.generateVNext.result";

/// Mastra's telemetry of before its exporters: a span for every method of its classes, with what that was given and gave. A call is a
/// step of a workflow that no program wrote; the span around all calls of a loop has what the last of them used.
///
/// Source: `@mastra/core` 0.16 and 0.23 with the AI SDK 5, run against a scripted server. Counts are those of the AI SDK 5, which leaves
/// cached tokens out where the provider does.
pub const MASTRA_METHODS: Dialect = Dialect {
    name: "mastra-methods",
    variant_of: "mastra",
    detect: &[
        Detect::Key("stream.toolCall.toolName"),
        Detect::Value("operation.name", MASTRA_FIRST_CALL),
        Detect::Method("agent.", "componentName"),
        Detect::Method("workflow.", "componentName"),
        Detect::Around("workflow.", "componentName", ".execute", "runId"),
    ],
    facts: &[
        row(
            names::PROVIDER,
            &[
                Json(MASTRA_CALL, &["metadata", "modelMetadata", "modelProvider"]),
                Where("operation.name", MASTRA_FIRST_CALL, &Key("aisdk.model.provider")),
            ],
            Provider,
        ),
        row(
            names::REQUEST_MODEL,
            &[
                Json(MASTRA_CALL, &["metadata", "modelMetadata", "modelId"]),
                Where("operation.name", MASTRA_FIRST_CALL, &Key("aisdk.model.id")),
                Json(MASTRA_LOOP, &["request", "body", "model"]),
            ],
            Model,
        ),
        row(
            names::RESPONSE_MODEL,
            &[Json(MASTRA_CALL, &["metadata", "modelId"]), Json(MASTRA_LOOP, &["response", "modelId"])],
            Model,
        ),
        row(names::INPUT_TOKENS, &[Json(MASTRA_LOOP, &["usage", "inputTokens"])], Count),
        row(names::OUTPUT_TOKENS, &[Json(MASTRA_LOOP, &["usage", "outputTokens"])], Count),
        row(names::TOTAL_TOKENS, &[Json(MASTRA_LOOP, &["usage", "totalTokens"])], Count),
        row(names::CACHE_READ_TOKENS, &[Json(MASTRA_LOOP, &["usage", "cachedInputTokens"])], Count),
        row(names::REASONING_TOKENS, &[Json(MASTRA_LOOP, &["usage", "reasoningTokens"])], Count),
        row(names::RESPONSE_ID, &[Json(MASTRA_CALL, &["metadata", "id"])], Text),
        row(
            names::FINISH_REASONS,
            &[
                Json(MASTRA_CALL, &["stepResult", "reason"]),
                Where("operation.name", MASTRA_FIRST_CALL, &Key("stream.response.finishReason")),
            ],
            Words,
        ),
        row(
            names::CONVERSATION_ID,
            &[
                Key("threadId"),
                Json("agent.generate.argument.1", &["threadId"]),
                Json("agent.stream.argument.1", &["threadId"]),
                Json("agent.generateVNext.argument.1", &["threadId"]),
                Json("agent.streamVNext.argument.1", &["threadId"]),
            ],
            Text,
        ),
        row(
            names::USER_ID,
            &[
                Key("resourceId"),
                Json("agent.generate.argument.1", &["resourceId"]),
                Json("agent.stream.argument.1", &["resourceId"]),
                Json("agent.generateVNext.argument.1", &["resourceId"]),
                Json("agent.streamVNext.argument.1", &["resourceId"]),
            ],
            Text,
        ),
        row(names::TOOL_NAME, &[Key("stream.toolCall.toolName")], Text),
        row(names::TOOL_CALL_ID, &[Key("stream.toolCall.toolCallId")], Text),
    ],
    // What is below a workflow bears the name of that, and the id of its run.
    entity: &[Between("workflow.", ".execute"), Lacking(&["runId"], &Key("componentName"))],
    usage: &[
        Json(MASTRA_CALL, &["metadata", "providerMetadata", "anthropic", "usage"]),
        Json(MASTRA_CALL, &["metadata", "providerMetadata", "google", "usageMetadata"]),
        Json(MASTRA_CALL, &["output", "usage"]),
    ],
    content: &[
        content(
            Side::In,
            &[
                Key("stream.toolCall.args"),
                Json(MASTRA_CALL, &["metadata", "request", "body", "messages"]),
                Json("workflow.executionWorkflow.step.llm-execution.argument.0", &["inputData", "messages", "all"]),
                Json("agent.generate.argument.0", &[]),
                Json("agent.stream.argument.0", &[]),
                Json("agent.generateVNext.argument.0", &[]),
                Json("agent.streamVNext.argument.0", &[]),
                Where("operation.name", MASTRA_FIRST_CALL, &Key("stream.prompt.messages")),
            ],
        ),
        content(
            Side::Out,
            &[
                Json("stream.toolCall.result", &[]),
                Json(MASTRA_CALL, &["output", "text"]),
                Json(MASTRA_CALL, &["output", "toolCalls"]),
                Json("agent.generate.result", &["text"]),
                Json("agent.stream.result", &["text"]),
                Json(MASTRA_LOOP, &["text"]),
            ],
        ),
    ],
    kinds: &[
        kind("stream.toolCall.toolName", Test::Present, StepKind::Tool),
        kind(SPAN_NAME, Test::Is("workflow.executionWorkflow.step.llm-execution"), StepKind::Llm),
        kind(SPAN_NAME, Test::Is(MASTRA_FIRST_CALL), StepKind::Llm),
        kind(SPAN_NAME, Test::Is("agent.generate"), StepKind::Agent),
        kind(SPAN_NAME, Test::Is("agent.stream"), StepKind::Agent),
        kind(SPAN_NAME, Test::Is("agent.network"), StepKind::Agent),
        kind(SPAN_NAME, Test::Is("agent.generateVNext"), StepKind::Agent),
        kind(SPAN_NAME, Test::Is("agent.streamVNext"), StepKind::Agent),
        kind(SPAN_NAME, Test::Is("agent.generateLegacy"), StepKind::Agent),
        kind(SPAN_NAME, Test::Is("agent.streamLegacy"), StepKind::Agent),
        // The loop of an agent.
        kind(SPAN_NAME, Test::Starts("workflow.agentic-loop."), StepKind::Task),
        kind(SPAN_NAME, Test::Starts("workflow.executionWorkflow."), StepKind::Task),
        kind(SPAN_NAME, Test::Between("workflow.", ".execute"), StepKind::Workflow),
    ],
    outcomes: &[
        Outcome {
            from: Json(MASTRA_CALL, &["stepResult", "reason"]),
            word: "error",
            status: StepStatus::Error,
            message: &[],
        },
        Outcome {
            from: Where("operation.name", MASTRA_FIRST_CALL, &Key("stream.response.finishReason")),
            word: "error",
            status: StepStatus::Error,
            message: &[],
        },
        Outcome {
            from: Json("stream.toolCall.result", &["code"]),
            word: "TOOL_EXECUTION_FAILED",
            status: StepStatus::Error,
            message: &[Json("stream.toolCall.result", &["message"])],
        },
    ],
    // What a loop over Claude wrote to a cache is told of each step alone.
    untold: &[
        Untold { when: &[(MASTRA_LOOP, Test::Has("\"providerMetadata\":{\"anthropic\":"))], counts: WHOLE },
        Untold { when: &[(MASTRA_LOOP, Test::Has("\"providerMetadata\":{\"bedrock\":"))], counts: WHOLE },
    ],
    // What a method throws it does not tell, but for having no result.
    fails_without: &[
        ("agent.generate", &["agent.generate.result"]),
        ("agent.generateVNext", &["agent.generateVNext.result"]),
        ("agent.generateLegacy", &["agent.generateLegacy.result"]),
    ],
    basis: EXCLUSIVE_WHERE_PROVIDERS_ARE,
    ..PLAIN
};

/// VoltAgent, whose agents bear what all their calls used, and whose calls only what the last of their steps did.
///
/// Source: `@voltagent/core` 2.10 with the AI SDK 6, and 1.5 with the AI SDK 5, run against a scripted server.
pub const VOLTAGENT: Dialect = Dialect {
    name: "voltagent",
    detect: &[Detect::Scope("@voltagent/core"), Detect::Key("voltagent.operation_id")],
    facts: &[
        row(names::REQUEST_MODEL, &[Key("llm.model"), Key("ai.model.name")], Model),
        // A sub-agent bears the name of the one that it works for as well.
        row(names::AGENT_NAME, &[Key("subagent.name"), Key("entity.name")], Text),
        row(names::TOOL_NAME, &[Key("tool.name")], Text),
        row(names::TOOL_CALL_ID, &[Key("tool.call.id")], Text),
        row(names::FINISH_REASONS, &[Key("llm.finish_reason")], Words),
        row(names::INPUT_TOKENS, &[Key("usage.prompt_tokens")], Count),
        row(names::OUTPUT_TOKENS, &[Key("usage.completion_tokens")], Count),
        row(names::CACHE_READ_TOKENS, &[Key("usage.cached_tokens")], Count),
        row(names::REASONING_TOKENS, &[Key("usage.reasoning_tokens")], Count),
    ],
    entity: &[Key("entity.name")],
    content: &[content(Side::In, &[Key("input"), Key("llm.messages")]), content(Side::Out, &[Key("output")])],
    kinds: &[
        kind("span.type", Test::Is("llm"), StepKind::Llm),
        kind("span.type", Test::Is("tool"), StepKind::Tool),
        kind("span.type", Test::Is("retriever"), StepKind::Retrieval),
        kind("span.type", Test::Is("embedding"), StepKind::Embedding),
        kind("span.type", Test::Is("guardrail"), StepKind::Guardrail),
        kind("span.type", Test::Is("workflow"), StepKind::Workflow),
        kind("span.type", Test::Is("agent"), StepKind::Agent),
        kind("span.type", Test::Present, StepKind::Task),
        kind("entity.type", Test::Is("workflow"), StepKind::Workflow),
        kind("entity.type", Test::Is("agent"), StepKind::Agent),
    ],
    // Version 1, with the AI SDK 5, leaves cached tokens of Claude out, and what was written to a cache is told nowhere. It says nothing
    // of reasoning where the provider does not; version 2 does so always.
    untold: &[Untold {
        when: &[
            ("usage.cached_tokens", Test::Some),
            ("usage.cached_tokens", Test::Without(&["usage.reasoning_tokens"])),
            (names::REQUEST_MODEL, Test::Has("claude")),
        ],
        counts: WHOLE,
    }],
    basis: ALL_INCLUSIVE,
    ..PLAIN
};

/// Langfuse's SDK for JavaScript, whose buckets are those of LangChain: its input is what LangChain counts without what was cached, which
/// `@langchain/anthropic` had left out itself before. That tells its version since 1.3.21, when it counted all.
///
/// Source: `@langfuse/langchain` 4.2 with `@langchain/anthropic` 0.3.34, and 5.11 with 1.5.11, run against a scripted server; the code of
/// `@langchain/anthropic` 1.0 to 1.5.
pub const LANGFUSE_JS: Dialect = Dialect {
    name: "langfuse-js",
    variant_of: "langfuse",
    detect: &[Detect::ScopeBy("langfuse-sdk", "telemetry.sdk.language", "nodejs")],
    untold: &[
        Untold { when: &[LANGCHAIN_CLAUDE, (names::CACHE_READ_TOKENS, Test::Some)], counts: WHOLE },
        Untold { when: &[LANGCHAIN_CLAUDE, (names::CACHE_WRITE_TOKENS, Test::Some)], counts: WHOLE },
    ],
    ..LANGFUSE
};

/// The same where LangChain tells the version of `@langchain/anthropic`, as that does since 1.3.21.
pub const LANGFUSE_JS_SUMMED: Dialect = Dialect {
    name: "langfuse-js-summed",
    detect: &[Detect::Within {
        scope: "langfuse-sdk",
        name: "",
        key: "langfuse.observation.metadata.versions",
        part: "\"@langchain/anthropic\"",
    }],
    untold: &[],
    ..LANGFUSE_JS
};

/// A call of Claude by LangChain.
const LANGCHAIN_CLAUDE: (&str, Test) = ("langfuse.observation.metadata.ls_provider", Test::Is("anthropic"));
