//! Dialects: how each emitter writes the same facts.
//!
//! A dialect is a table: how to recognise it, under which names it has the facts, how it says what a step is and how it
//! ended, and whether its input tokens include cached ones. The first dialect of [`DIALECTS`] that recognises a span
//! is read first; the rows of [`OTEL`] then fill what is still missing, so a dialect lists only what differs.

use crate::model::{StepKind, StepStatus};

use super::names;

/// One emitter's way of writing.
#[derive(Debug)]
pub struct Dialect {
    /// Its name, for people.
    pub name: &'static str,
    /// Any of these recognises a span of it.
    pub detect: &'static [Detect],
    /// Where it has facts that are single values.
    pub facts: &'static [Row],
    /// Where it has the name of what a step is: of the agent, tool or workflow, as the kind of the step says.
    pub entity: &'static [Source],
    /// Where it has what went in and out.
    pub content: &'static [Content],
    /// How it says what a step is; the first that fits wins.
    pub kinds: &'static [KindRow],
    /// How it says that a step ended badly, where it does not use the OTLP status.
    pub outcomes: &'static [Outcome],
    /// Whether input tokens include cached ones, by provider; the first that fits wins, none means it is not known.
    pub basis: &'static [BasisRow],
    /// Input and output both 0 mean that nothing was reported.
    pub zero_means_unreported: bool,
    /// A finished model call of these operations without any trace of a response failed.
    pub failed_without_response: &'static [&'static str],
}

/// A mark by which a dialect is recognised.
#[derive(Clone, Copy, Debug)]
pub enum Detect {
    /// The span has this attribute.
    Key(&'static str),
    /// The span has an attribute whose value starts so.
    Value(&'static str, &'static str),
    /// The scope has this name.
    Scope(&'static str),
    /// The scope's name starts so.
    ScopePrefix(&'static str),
}

/// A fact: the canonical name, where a dialect has it, and how it is written there.
#[derive(Debug)]
pub struct Row {
    /// Canonical name.
    pub to: &'static str,
    /// Where it stands, best source first; before all of them under the canonical name itself.
    pub from: &'static [Source],
    /// How it is written.
    pub shape: Shape,
}

/// A place where a value stands.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// An attribute of the span, or of one of its events.
    Key(&'static str),
    /// A member of an attribute that holds a JSON object, by its path.
    Json(&'static str, &'static [&'static str]),
    /// Messages spread over attributes: `PREFIX.0.role`, `PREFIX.0.content`, `PREFIX.1.role`, ...
    Indexed(&'static str),
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A count, as integer, float or text; becomes an integer.
    Count,
    /// Text or a list of texts; copied.
    Text,
    /// A provider's name; becomes the canonical one.
    Provider,
}

/// Which side of a step a content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What went in.
    In,
    /// What came out.
    Out,
    /// Standing instructions.
    System,
}

/// Where a dialect has one side of the content. Which canonical name it gets depends on the kind of the step.
#[derive(Debug)]
pub struct Content {
    /// The side.
    pub side: Side,
    /// Where it stands, best source first.
    pub from: &'static [Source],
}

/// How a dialect says what a step is.
#[derive(Debug)]
pub struct KindRow {
    /// The attribute that says it.
    pub key: &'static str,
    /// What it says.
    pub test: Test,
    /// The kind that it means.
    pub kind: StepKind,
}

/// A condition on a value, case ignored and quotes around it as well.
#[derive(Clone, Copy, Debug)]
pub enum Test {
    /// The value is this.
    Is(&'static str),
    /// The value is this, on a span without a parent.
    IsRoot(&'static str),
    /// The value ends so.
    Ends(&'static str),
    /// The attribute is there.
    Present,
    /// The attribute is there, and the span is not an [`ORDINARY`] call that merely bears the label.
    Label,
}

/// How a dialect says that a step ended badly.
#[derive(Debug)]
pub struct Outcome {
    /// The attribute that says it.
    pub key: &'static str,
    /// The word it says.
    pub word: &'static str,
    /// The status that it means.
    pub status: StepStatus,
}

/// Whether input tokens include cached ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// They do, as the standard says.
    Inclusive,
    /// They do not: cached ones have to be added.
    Exclusive,
}

/// The basis of a dialect for the providers whose canonical name starts so.
#[derive(Debug)]
pub struct BasisRow {
    /// Start of the provider's name; empty for all.
    pub provider: &'static str,
    /// The basis.
    pub basis: Basis,
}

use Shape::{Count, Provider, Text};
use Source::{Indexed, Json, Key};

const fn row(to: &'static str, from: &'static [Source], shape: Shape) -> Row {
    Row { to, from, shape }
}

const fn kind(key: &'static str, test: Test, kind: StepKind) -> KindRow {
    KindRow { key, test, kind }
}

const fn content(side: Side, from: &'static [Source]) -> Content {
    Content { side, from }
}

const ALL_INCLUSIVE: &[BasisRow] = &[BasisRow { provider: "", basis: Basis::Inclusive }];

/// All dialects but [`OTEL`], in the order in which they are tried: the more particular mark first.
pub const DIALECTS: &[&Dialect] =
    &[&LANGFUSE, &OPENINFERENCE, &CLAUDE_CODE, &TRACELOOP, &MLFLOW, &LANGSMITH, &VERCEL, &RIG, &OTEL_INSTRUMENTATION];

/// The standard itself, with all names it ever had and aliases that several emitters share.
///
/// Source: deprecated registry of OpenTelemetry semantic conventions 1.44; the migration guide of the GenAI
/// repository; for the cache counts also the union of names that Langfuse's server accepts.
pub const OTEL: Dialect = Dialect {
    name: "otel",
    detect: &[],
    facts: &[
        row(names::PROVIDER, &[Key("gen_ai.system")], Provider),
        row(names::REQUEST_MODEL, &[], Text),
        row(names::RESPONSE_MODEL, &[], Text),
        row(names::RESPONSE_ID, &[], Text),
        row(names::FINISH_REASONS, &[Key("gen_ai.response.finish_reason")], Text),
        row(names::TOOL_CALL_ID, &[Key("gen_ai.tool.call_id")], Text),
        row(
            names::CONVERSATION_ID,
            // By how surely the name means a conversation; `mcp.session.id` is a transport's and stays out.
            &[
                Key("session.id"),
                Key("langfuse.session.id"),
                Key("traceloop.association.properties.session_id"),
                Key("ai.telemetry.metadata.sessionId"),
                Key("langsmith.metadata.thread_id"),
                Key("gcp.vertex.agent.session_id"),
                Key("spring.ai.chat.client.conversation.id"),
            ],
            Text,
        ),
        row(
            names::USER_ID,
            &[
                Key("enduser.id"),
                Key("langfuse.user.id"),
                Key("traceloop.association.properties.user_id"),
                Key("ai.telemetry.metadata.userId"),
                Key("gen_ai.user"),
            ],
            Text,
        ),
        row(names::EXTERNAL_ID, &[Key("gen_ai.agent.call.id"), Key("gcp.vertex.agent.invocation_id")], Text),
        row(names::INPUT_TOKENS, &[Key("gen_ai.usage.prompt_tokens")], Count),
        row(names::OUTPUT_TOKENS, &[Key("gen_ai.usage.completion_tokens")], Count),
        row(
            names::CACHE_READ_TOKENS,
            &[
                Key("gen_ai.usage.cache_read_input_tokens"),
                Key("gen_ai.usage.cache_read_tokens"),
                Key("gen_ai.usage.details.cache_read_tokens"),
                Key("gen_ai.usage.details.cache_read_input_tokens"),
            ],
            Count,
        ),
        row(
            names::CACHE_WRITE_TOKENS,
            &[
                Key("gen_ai.usage.cache_creation.input_tokens"),
                Key("gen_ai.usage.cache_creation_input_tokens"),
                Key("gen_ai.usage.cache_write_input_tokens"),
                Key("gen_ai.usage.cache_write_tokens"),
                Key("gen_ai.usage.cache_creation_tokens"),
                Key("gen_ai.usage.details.cache_write_tokens"),
            ],
            Count,
        ),
        row(
            names::REASONING_TOKENS,
            &[
                Key("gen_ai.usage.reasoning_tokens"),
                Key("gen_ai.usage.details.reasoning_tokens"),
                Key("gen_ai.usage.thinking_tokens"),
            ],
            Count,
        ),
        row(names::TOTAL_TOKENS, &[Key("llm.usage.total_tokens")], Count),
        row(names::OPENAI_SERVICE_TIER, &[Key("gen_ai.openai.response.service_tier")], Text),
        row("gen_ai.request.seed", &[Key("gen_ai.openai.request.seed")], Text),
        row("gen_ai.output.type", &[Key("gen_ai.openai.request.response_format")], Text),
        row("openai.response.system_fingerprint", &[Key("gen_ai.openai.response.system_fingerprint")], Text),
    ],
    entity: &[],
    content: &[
        content(Side::System, &[Key(names::SYSTEM_INSTRUCTIONS)]),
        content(Side::In, &[Key(names::INPUT_MESSAGES), Key("gen_ai.prompt"), Indexed("gen_ai.prompt")]),
        content(Side::Out, &[Key(names::OUTPUT_MESSAGES), Key("gen_ai.completion"), Indexed("gen_ai.completion")]),
    ],
    kinds: &[
        kind(names::OPERATION, Test::Is("chat_streaming"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("completion"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("text_completions"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("interactions"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("interactions_streaming"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("llm_call"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("llm_request"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("response"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("image"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("image_generation"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("audio_generation"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("transcription"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("embedding"), StepKind::Embedding),
        kind(names::OPERATION, Test::Is("rerank"), StepKind::Rerank),
        kind(names::OPERATION, Test::Is("tool_call"), StepKind::Tool),
        kind(names::OPERATION, Test::Is("agent_call"), StepKind::Agent),
        kind(names::OPERATION, Test::Is("vector_db_retrieve"), StepKind::Retrieval),
        kind(names::OPERATION, Test::Is("execute_guardrail"), StepKind::Guardrail),
        kind(names::OPERATION, Test::Is("guardrail"), StepKind::Guardrail),
        // Whatever else an operation may be, it is no reason to guess from the fields below.
        kind(names::OPERATION, Test::Present, StepKind::Task),
        kind(names::MCP_METHOD, Test::Is("tools/call"), StepKind::Tool),
        kind(names::MCP_METHOD, Test::Present, StepKind::Task),
        kind(names::TOOL_NAME, Test::Present, StepKind::Tool),
        kind(names::WORKFLOW_NAME, Test::Label, StepKind::Workflow),
        kind(names::REQUEST_MODEL, Test::Present, StepKind::Llm),
        kind(names::RETRIEVAL_QUERY, Test::Present, StepKind::Retrieval),
        kind(names::DATA_SOURCE_ID, Test::Present, StepKind::Retrieval),
        kind(names::AGENT_NAME, Test::Label, StepKind::Agent),
    ],
    outcomes: &[],
    basis: &[],
    zero_means_unreported: false,
    failed_without_response: &[],
};

/// The instrumentations of OpenTelemetry's own contrib repositories, which follow the standard's rule: input includes
/// cached tokens.
pub const OTEL_INSTRUMENTATION: Dialect = Dialect {
    name: "otel-instrumentation",
    detect: &[Detect::ScopePrefix("opentelemetry.instrumentation.")],
    basis: ALL_INCLUSIVE,
    ..PLAIN
};

/// rig, as it comes through any tracing layer.
///
/// Source: rig-core and rig-agent 0.44 (`telemetry/mod.rs`, `tool/result.rs`, `usage_of` of each provider) and the
/// recordings in `tests/data/corpus/rig`. Counts include cached and reasoning tokens for every provider, and a count
/// that the provider did not report is absent, so a zero is a zero. The OTLP status is never set: a failed tool says so
/// in its outcome, and a failed call by having neither response nor usage.
pub const RIG: Dialect = Dialect {
    name: "rig",
    detect: &[
        Detect::Key("rig.completion_parent"),
        Detect::Key("rig.provider_request_id"),
        Detect::ScopePrefix("rig::"),
        Detect::ScopePrefix("rig_core::"),
        Detect::ScopePrefix("rig_agent::"),
        Detect::Value("target", "rig::"),
        Detect::Value("target", "rig_core::"),
        Detect::Value("target", "rig_agent::"),
    ],
    facts: &[row(names::ERROR_TYPE, &[Key("gen_ai.tool.error.type")], Text)],
    outcomes: &[
        Outcome { key: "gen_ai.tool.call.outcome", word: "error", status: StepStatus::Error },
        // The tool did not run: a hook of the program refused or skipped the call.
        Outcome { key: "gen_ai.tool.call.outcome", word: "denied", status: StepStatus::Cancelled },
        Outcome { key: "gen_ai.tool.call.outcome", word: "skipped", status: StepStatus::Cancelled },
    ],
    basis: ALL_INCLUSIVE,
    failed_without_response: &["chat", "generate_content", "embeddings"],
    ..PLAIN
};

/// OpenInference (Arize): its own names for everything, flattened lists.
///
/// Source: `Arize-ai/openinference` spec/semantic_conventions.md and spec/llm_spans.md.
pub const OPENINFERENCE: Dialect = Dialect {
    name: "openinference",
    detect: &[Detect::Key("openinference.span.kind")],
    facts: &[
        row(names::PROVIDER, &[Key("llm.provider"), Key("llm.system")], Provider),
        row(
            names::REQUEST_MODEL,
            &[
                Key("llm.request.model_name"),
                Key("llm.model_name"),
                Key("embedding.model_name"),
                Key("reranker.model_name"),
            ],
            Text,
        ),
        row(names::RESPONSE_MODEL, &[Key("llm.response.model_name")], Text),
        row(names::FINISH_REASONS, &[Key("llm.finish_reason")], Text),
        row(names::INPUT_TOKENS, &[Key("llm.token_count.prompt")], Count),
        row(names::OUTPUT_TOKENS, &[Key("llm.token_count.completion")], Count),
        row(names::TOTAL_TOKENS, &[Key("llm.token_count.total")], Count),
        row(names::CACHE_READ_TOKENS, &[Key("llm.token_count.prompt_details.cache_read")], Count),
        row(names::CACHE_WRITE_TOKENS, &[Key("llm.token_count.prompt_details.cache_write")], Count),
        row(names::REASONING_TOKENS, &[Key("llm.token_count.completion_details.reasoning")], Count),
        row(names::TOOL_NAME, &[Key("tool.name")], Text),
        row(names::TOOL_CALL_ID, &[Key("tool.id")], Text),
        row(names::AGENT_NAME, &[Key("agent.name")], Text),
        row(names::TAGS, &[Key("tag.tags")], Text),
    ],
    content: &[
        content(Side::In, &[Indexed("llm.input_messages"), Key("input.value")]),
        content(Side::Out, &[Indexed("llm.output_messages"), Key("output.value")]),
    ],
    kinds: &[
        kind("openinference.span.kind", Test::Is("LLM"), StepKind::Llm),
        kind("openinference.span.kind", Test::Is("TOOL"), StepKind::Tool),
        kind("openinference.span.kind", Test::Is("AGENT"), StepKind::Agent),
        kind("openinference.span.kind", Test::Is("RETRIEVER"), StepKind::Retrieval),
        kind("openinference.span.kind", Test::Is("RERANKER"), StepKind::Rerank),
        kind("openinference.span.kind", Test::Is("EMBEDDING"), StepKind::Embedding),
        kind("openinference.span.kind", Test::Is("GUARDRAIL"), StepKind::Guardrail),
        kind("openinference.span.kind", Test::Is("EVALUATOR"), StepKind::Evaluator),
        kind("openinference.span.kind", Test::IsRoot("CHAIN"), StepKind::Workflow),
        kind("openinference.span.kind", Test::Present, StepKind::Task),
    ],
    ..PLAIN
};

/// OpenLLMetry (Traceloop).
///
/// Source: `traceloop/openllmetry` 0.62.1 and `opentelemetry-semantic-conventions-ai` 0.5.1; recordings of 0.62 and 0.40,
/// the older of which writes zeros for a streamed call whose usage it missed.
pub const TRACELOOP: Dialect = Dialect {
    name: "traceloop",
    detect: &[Detect::Key("traceloop.span.kind"), Detect::Key("llm.request.type"), Detect::Scope("traceloop.tracer")],
    facts: &[
        row(names::INPUT_TOKENS, &[Key("llm.usage.prompt_tokens")], Count),
        row(names::OUTPUT_TOKENS, &[Key("llm.usage.completion_tokens")], Count),
    ],
    entity: &[Key("traceloop.entity.name")],
    content: &[
        content(Side::In, &[Key("traceloop.entity.input")]),
        content(Side::Out, &[Key("traceloop.entity.output")]),
    ],
    kinds: &[
        kind("traceloop.span.kind", Test::Is("agent"), StepKind::Agent),
        kind("traceloop.span.kind", Test::Is("tool"), StepKind::Tool),
        kind("traceloop.span.kind", Test::Is("workflow"), StepKind::Workflow),
        kind("traceloop.span.kind", Test::Is("task"), StepKind::Task),
        kind("llm.request.type", Test::Is("embedding"), StepKind::Embedding),
        kind("llm.request.type", Test::Is("rerank"), StepKind::Rerank),
        kind("llm.request.type", Test::Is("chat"), StepKind::Llm),
        kind("llm.request.type", Test::Is("completion"), StepKind::Llm),
    ],
    basis: ALL_INCLUSIVE,
    zero_means_unreported: true,
    ..PLAIN
};

/// Vercel's AI SDK, legacy names (scope `ai`).
///
/// Source: `vercel/ai` packages/otel, 2026-08-22. The outer `ai.generateText` repeats the usage of the `.doGenerate`
/// spans below it, so it is an agent's.
pub const VERCEL: Dialect = Dialect {
    name: "vercel-ai",
    detect: &[Detect::Key("ai.operationId"), Detect::Scope("ai")],
    facts: &[
        row(names::PROVIDER, &[Key("ai.model.provider")], Provider),
        row(names::REQUEST_MODEL, &[Key("ai.model.id")], Text),
        row(names::RESPONSE_MODEL, &[Key("ai.response.model")], Text),
        row(names::RESPONSE_ID, &[Key("ai.response.id")], Text),
        row(names::FINISH_REASONS, &[Key("ai.response.finishReason")], Text),
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
        row(
            names::CACHE_WRITE_TOKENS,
            &[
                Key("ai.usage.inputTokenDetails.cacheWriteTokens"),
                Json("ai.response.providerMetadata", &["anthropic", "usage", "cache_creation_input_tokens"]),
            ],
            Count,
        ),
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
            &[Key("ai.prompt.messages"), Key("ai.toolCall.args"), Key("ai.prompt"), Key("ai.values"), Key("ai.value")],
        ),
        content(
            Side::Out,
            &[
                Key("ai.toolCall.result"),
                Key("ai.response.text"),
                Key("ai.response.object"),
                Key("ai.response.toolCalls"),
            ],
        ),
    ],
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
    ..PLAIN
};

/// Langfuse's SDK.
///
/// Source: the OTLP part of the server in `langfuse/langfuse`, 2026-08-22, and recordings of `langfuse` 5. Counts are
/// written as the provider has them, or as buckets that are added up.
pub const LANGFUSE: Dialect = Dialect {
    name: "langfuse",
    detect: &[Detect::Key("langfuse.observation.type"), Detect::Scope("langfuse-sdk")],
    facts: &[
        row(names::REQUEST_MODEL, &[Key("langfuse.observation.model.name")], Text),
        row(
            names::INPUT_TOKENS,
            &[
                Json("langfuse.observation.usage_details", &["prompt_tokens"]),
                Json("langfuse.observation.usage_details", &["input_tokens"]),
                Json("langfuse.observation.usage_details", &["input"]),
            ],
            Count,
        ),
        row(
            names::OUTPUT_TOKENS,
            &[
                Json("langfuse.observation.usage_details", &["completion_tokens"]),
                Json("langfuse.observation.usage_details", &["output_tokens"]),
                Json("langfuse.observation.usage_details", &["output"]),
            ],
            Count,
        ),
        row(
            names::CACHE_READ_TOKENS,
            &[
                Json("langfuse.observation.usage_details", &["prompt_tokens_details", "cached_tokens"]),
                Json("langfuse.observation.usage_details", &["input_tokens_details", "cached_tokens"]),
                Json("langfuse.observation.usage_details", &["cache_read_input_tokens"]),
                Json("langfuse.observation.usage_details", &["input_cached_tokens"]),
            ],
            Count,
        ),
        row(
            names::CACHE_WRITE_TOKENS,
            &[
                Json("langfuse.observation.usage_details", &["cache_creation_input_tokens"]),
                Json("langfuse.observation.usage_details", &["input_cache_creation"]),
            ],
            Count,
        ),
        row(
            names::REASONING_TOKENS,
            &[
                Json("langfuse.observation.usage_details", &["completion_tokens_details", "reasoning_tokens"]),
                Json("langfuse.observation.usage_details", &["output_tokens_details", "reasoning_tokens"]),
                Json("langfuse.observation.usage_details", &["output_reasoning_tokens"]),
            ],
            Count,
        ),
        row(names::TOTAL_TOKENS, &[Json("langfuse.observation.usage_details", &["total"])], Count),
    ],
    content: &[
        content(Side::In, &[Key("langfuse.observation.input")]),
        content(Side::Out, &[Key("langfuse.observation.output")]),
    ],
    kinds: &[
        kind("langfuse.observation.type", Test::Is("generation"), StepKind::Llm),
        kind("langfuse.observation.type", Test::Is("agent"), StepKind::Agent),
        kind("langfuse.observation.type", Test::Is("tool"), StepKind::Tool),
        kind("langfuse.observation.type", Test::Is("retriever"), StepKind::Retrieval),
        kind("langfuse.observation.type", Test::Is("embedding"), StepKind::Embedding),
        kind("langfuse.observation.type", Test::Is("guardrail"), StepKind::Guardrail),
        kind("langfuse.observation.type", Test::Is("evaluator"), StepKind::Evaluator),
        kind("langfuse.observation.type", Test::IsRoot("chain"), StepKind::Workflow),
        kind("langfuse.observation.type", Test::Present, StepKind::Task),
    ],
    ..PLAIN
};

/// MLflow, which writes every value as JSON.
///
/// Source: `mlflow-skinny` 3.17.2 `mlflow/tracing/constant.py`, and recordings.
pub const MLFLOW: Dialect = Dialect {
    name: "mlflow",
    detect: &[Detect::Key("mlflow.spanType"), Detect::Key("mlflow.traceRequestId")],
    facts: &[
        row(
            names::REQUEST_MODEL,
            &[Json("mlflow.spanInputs", &["model"]), Json("mlflow.spanOutputs", &["model"])],
            Text,
        ),
        row(names::RESPONSE_MODEL, &[Json("mlflow.spanOutputs", &["model"])], Text),
        row(names::RESPONSE_ID, &[Json("mlflow.spanOutputs", &["id"])], Text),
        row(names::INPUT_TOKENS, &[Json("mlflow.chat.tokenUsage", &["input_tokens"])], Count),
        row(names::OUTPUT_TOKENS, &[Json("mlflow.chat.tokenUsage", &["output_tokens"])], Count),
        row(names::TOTAL_TOKENS, &[Json("mlflow.chat.tokenUsage", &["total_tokens"])], Count),
        row(names::CACHE_READ_TOKENS, &[Json("mlflow.chat.tokenUsage", &["cache_read_input_tokens"])], Count),
        row(names::CACHE_WRITE_TOKENS, &[Json("mlflow.chat.tokenUsage", &["cache_creation_input_tokens"])], Count),
    ],
    content: &[content(Side::In, &[Key("mlflow.spanInputs")]), content(Side::Out, &[Key("mlflow.spanOutputs")])],
    kinds: &[
        kind("mlflow.spanType", Test::Is("LLM"), StepKind::Llm),
        kind("mlflow.spanType", Test::Is("CHAT_MODEL"), StepKind::Llm),
        kind("mlflow.spanType", Test::Is("AGENT"), StepKind::Agent),
        kind("mlflow.spanType", Test::Is("TOOL"), StepKind::Tool),
        kind("mlflow.spanType", Test::Is("WORKFLOW"), StepKind::Workflow),
        kind("mlflow.spanType", Test::Is("RETRIEVER"), StepKind::Retrieval),
        kind("mlflow.spanType", Test::Is("RERANKER"), StepKind::Rerank),
        kind("mlflow.spanType", Test::Is("EMBEDDING"), StepKind::Embedding),
        kind("mlflow.spanType", Test::Is("GUARDRAIL"), StepKind::Guardrail),
        kind("mlflow.spanType", Test::Is("EVALUATOR"), StepKind::Evaluator),
        kind("mlflow.spanType", Test::IsRoot("CHAIN"), StepKind::Workflow),
        kind("mlflow.spanType", Test::Present, StepKind::Task),
    ],
    basis: ALL_INCLUSIVE,
    ..PLAIN
};

/// LangSmith's SDK in its OpenTelemetry mode.
///
/// Source: `langsmith` 0.15.0 `_internal/otel/_otel_exporter.py`, and recordings. The operation of a retriever is
/// `embeddings` there, so its own kind is asked first.
pub const LANGSMITH: Dialect = Dialect {
    name: "langsmith",
    detect: &[Detect::Key("langsmith.span.kind")],
    facts: &[
        row(
            names::CACHE_READ_TOKENS,
            &[
                Json("langsmith.metadata.usage_metadata", &["input_token_details", "cache_read"]),
                Json("langsmith.usage_metadata", &["input_token_details", "cache_read"]),
                Json("gen_ai.usage.input_token_details", &["cache_read"]),
            ],
            Count,
        ),
        row(
            names::CACHE_WRITE_TOKENS,
            &[
                Json("langsmith.metadata.usage_metadata", &["input_token_details", "cache_creation"]),
                Json("langsmith.usage_metadata", &["input_token_details", "cache_creation"]),
                Json("gen_ai.usage.input_token_details", &["cache_creation"]),
            ],
            Count,
        ),
        row(
            names::REASONING_TOKENS,
            &[
                Json("langsmith.metadata.usage_metadata", &["output_token_details", "reasoning"]),
                Json("langsmith.usage_metadata", &["output_token_details", "reasoning"]),
                Json("gen_ai.usage.output_token_details", &["reasoning"]),
            ],
            Count,
        ),
    ],
    kinds: &[
        kind("langsmith.span.kind", Test::Is("llm"), StepKind::Llm),
        kind("langsmith.span.kind", Test::Is("tool"), StepKind::Tool),
        kind("langsmith.span.kind", Test::Is("retriever"), StepKind::Retrieval),
        kind("langsmith.span.kind", Test::Is("embedding"), StepKind::Embedding),
        kind("langsmith.span.kind", Test::IsRoot("chain"), StepKind::Workflow),
        kind("langsmith.span.kind", Test::Present, StepKind::Task),
    ],
    basis: ALL_INCLUSIVE,
    ..PLAIN
};

/// Claude Code's own telemetry: bare names, cached tokens apart.
///
/// Source: recordings of `claude-agent-sdk` 0.2.187; `mlflow/tracing/otel/translation/claude_code.py`.
pub const CLAUDE_CODE: Dialect = Dialect {
    name: "claude-code",
    detect: &[Detect::Value("span.type", "claude_code."), Detect::ScopePrefix("com.anthropic.claude_code")],
    facts: &[
        row(names::INPUT_TOKENS, &[Key("input_tokens")], Count),
        row(names::OUTPUT_TOKENS, &[Key("output_tokens")], Count),
        row(names::CACHE_READ_TOKENS, &[Key("cache_read_tokens")], Count),
        row(names::CACHE_WRITE_TOKENS, &[Key("cache_creation_tokens")], Count),
    ],
    content: &[
        content(Side::In, &[Key("new_context"), Key("tool_input"), Key("user_prompt")]),
        content(Side::Out, &[Key("response.model_output")]),
    ],
    kinds: &[
        kind("span.type", Test::Ends("llm_request"), StepKind::Llm),
        kind("span.type", Test::Ends("interaction"), StepKind::Agent),
    ],
    basis: &[BasisRow { provider: "", basis: Basis::Exclusive }],
    ..PLAIN
};

/// No dialect: a span that no other one recognises, and what a dialect has when it says nothing else.
pub const PLAIN: Dialect = Dialect {
    name: "plain",
    detect: &[],
    facts: &[],
    entity: &[],
    content: &[],
    kinds: &[],
    outcomes: &[],
    basis: &[],
    zero_means_unreported: false,
    failed_without_response: &[],
};

/// Attributes of spans that are an ordinary call of another kind. A session's or agent's name on them is a label that
/// baggage carried there, and no reason to take them for an agent.
pub const ORDINARY: &[&str] =
    &["http.request.method", "http.method", "db.system.name", "db.system", "rpc.system", "messaging.system"];

/// Span events of the deprecated standard that each carry one message: event name, side, role.
///
/// Source: deprecated events of OpenTelemetry semantic conventions 1.44.
pub const MESSAGE_EVENTS: &[(&str, Side, &str)] = &[
    ("gen_ai.system.message", Side::In, "system"),
    ("gen_ai.user.message", Side::In, "user"),
    ("gen_ai.assistant.message", Side::In, "assistant"),
    ("gen_ai.tool.message", Side::In, "tool"),
    ("gen_ai.choice", Side::Out, "assistant"),
];

/// A place where an emitter tells what a call cost, in US dollars.
#[derive(Clone, Copy, Debug)]
pub enum CostName {
    /// The whole cost.
    Total(&'static str),
    /// The whole cost, a member of a JSON object.
    TotalIn(&'static str, &'static str),
    /// Two parts that make the whole.
    Parts(&'static str, &'static str),
}

/// Where costs are told, best first. There is no standard for it.
///
/// Source: OpenLIT, Laminar and Langfuse (`gen_ai.usage.cost`), AgentOps (`.total_cost`), Pydantic AI
/// (`operation.cost`), OpenInference, LiteLLM 2, Langfuse, MLflow.
pub const REPORTED_COSTS: &[CostName] = &[
    CostName::Total("gen_ai.usage.cost"),
    CostName::Total("gen_ai.usage.total_cost"),
    CostName::Total("operation.cost"),
    CostName::Total("llm.cost.total"),
    CostName::Total("litellm.cost.total"),
    CostName::Total("gen_ai.cost.total_cost"),
    CostName::TotalIn("langfuse.observation.cost_details", "total"),
    CostName::TotalIn("mlflow.llm.cost", "total_cost"),
    CostName::Parts("gen_ai.usage.input_cost", "gen_ai.usage.output_cost"),
    CostName::Parts("llm.cost.prompt", "llm.cost.completion"),
];
