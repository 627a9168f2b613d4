//! OpenTelemetry's own words, and who writes them with little of their own.

use super::Detect;
use super::Shape::{Agent, Count, Model, Provider, Session, Text, User, Words};
use super::Source::{Before, Behind, Fixed, Indexed, Json, Key, Lacking, ModelBehind, Name, Parts, Where, With};
use super::{
    ALL_INCLUSIVE, AS_REPORTED, Basis, BasisRow, Dialect, Outcome, PLAIN, SPAN_NAME, Said, Side, Test, content, kind,
    row,
};
use crate::conventions::names;
use crate::model::{StepKind, StepStatus};

/// A call that ends for no other reason than an error, which the status need not say.
///
/// Source: `FinishReason` of the AI SDK, whose word Mastra passes on as well, in JSON; the standard's, by which a stream ends that
/// broke off.
pub(super) const FINISHED_BY_ERROR: Outcome =
    Outcome { from: Json(names::FINISH_REASONS, &["0"]), word: "error", status: StepStatus::Error, message: &[] };

/// The standard itself, with all names it ever had and aliases that several emitters share.
///
/// Source: deprecated registry of OpenTelemetry semantic conventions 1.44; the migration guide of the GenAI
/// repository; for the cache counts also the union of names that Langfuse's server accepts.
pub const OTEL: Dialect = Dialect {
    name: "otel",
    detect: &[],
    facts: &[
        // The AI SDK has the word for a gateway there, which is no provider; the model's name begins with who is.
        row(names::PROVIDER, &[Key("gen_ai.system"), Before("ai.model.id", "", '/')], Provider),
        // By the standard's names of spans, where that is all there is of a model.
        row(
            names::REQUEST_MODEL,
            &[
                Where(names::OPERATION, "chat", &Lacking(&[names::RESPONSE_MODEL], &ModelBehind("chat "))),
                Where(
                    names::OPERATION,
                    "generate_content",
                    &Lacking(&[names::RESPONSE_MODEL], &ModelBehind("generate_content ")),
                ),
                Where(
                    names::OPERATION,
                    "text_completion",
                    &Lacking(&[names::RESPONSE_MODEL], &ModelBehind("text_completion ")),
                ),
                Where(names::OPERATION, "embeddings", &Lacking(&[names::RESPONSE_MODEL], &ModelBehind("embeddings "))),
            ],
            Model,
        ),
        row(names::RESPONSE_MODEL, &[], Model),
        // Langtrace's.
        row(names::RESPONSE_ID, &[Key("gen_ai.response_id")], Text),
        row(names::FINISH_REASONS, &[Key("gen_ai.response.finish_reason")], Words),
        // The last is Ax'.
        row(
            names::TOOL_CALL_ID,
            &[Key("gen_ai.tool.call_id"), With("tool.name", "gen_ai.tool.message", &Key("function.id"))],
            Text,
        ),
        row(
            names::CONVERSATION_ID,
            // By how surely the name means a conversation; `mcp.session.id` is a transport's and stays out.
            &[
                Key("session.id"),
                Key("langfuse.session.id"),
                Key("traceloop.association.properties.session_id"),
                // The metadata of the AI SDK's calls by Traceloop's, as the program names it.
                Key("traceloop.association.properties.sessionId"),
                Key("ai.telemetry.metadata.sessionId"),
                Key("langsmith.metadata.thread_id"),
                Key("gcp.vertex.agent.session_id"),
                Key("spring.ai.chat.client.conversation.id"),
                // `thread.id` is a thread's of the operating system.
                Key("conversation.id"),
                // LangGraph's, by OpenLLMetry and Langfuse, where the program names no session.
                Key("traceloop.association.properties.thread_id"),
                Key("langfuse.observation.metadata.thread_id"),
                Key("langfuse.trace.metadata.thread_id"),
            ],
            Session,
        ),
        row(
            names::USER_ID,
            &[
                Key("enduser.id"),
                Key("langfuse.user.id"),
                Key("traceloop.association.properties.user_id"),
                Key("traceloop.association.properties.userId"),
                Key("ai.telemetry.metadata.userId"),
                Key("gen_ai.user"),
            ],
            User,
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
                Key("gen_ai.usage.details.cached_tokens"),
                Key("gen_ai.usage.prompt_details.cache_read"),
                Key("gen_ai.usage.input_cached_tokens"),
                // Langtrace's of OpenAI, and AgentScope's.
                Key("gen_ai.usage.cached_tokens"),
                Key("agentscope.usage.cache_input_tokens"),
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
                Key("gen_ai.usage.details.cache_creation_input_tokens"),
                Key("gen_ai.usage.prompt_details.cache_write"),
                Key("gen_ai.usage.input_cache_creation"),
                Key("agentscope.usage.cache_creation_input_tokens"),
            ],
            Count,
        ),
        row(
            names::REASONING_TOKENS,
            &[
                Key("gen_ai.usage.reasoning_tokens"),
                Key("gen_ai.usage.details.reasoning_tokens"),
                Key("gen_ai.usage.details.thoughts_tokens"),
                // Anthropic's, by Pydantic AI.
                Key("gen_ai.usage.details.thinking_tokens"),
                Key("gen_ai.usage.thinking_tokens"),
            ],
            Count,
        ),
        row(names::TOTAL_TOKENS, &[], Count),
        row(
            names::AUDIO_INPUT_TOKENS,
            &[Key("gen_ai.usage.details.input_audio_tokens"), Key("gen_ai.usage.audio_input_tokens")],
            Count,
        ),
        row(names::AUDIO_CACHE_READ_TOKENS, &[Key("gen_ai.usage.details.cache_audio_read_tokens")], Count),
        row(
            names::AUDIO_OUTPUT_TOKENS,
            &[Key("gen_ai.usage.details.output_audio_tokens"), Key("gen_ai.usage.audio_output_tokens")],
            Count,
        ),
        row(names::OPENAI_SERVICE_TIER, &[Key("gen_ai.openai.response.service_tier")], Text),
        row("gen_ai.request.seed", &[Key("gen_ai.openai.request.seed")], Text),
        row(names::OPENAI_REQUEST_TIER, &[Key("gen_ai.openai.request.service_tier")], Text),
        row(
            "gen_ai.output.type",
            &[
                Where("gen_ai.openai.request.response_format", "json_object", &Fixed("json")),
                Where("gen_ai.openai.request.response_format", "json_schema", &Fixed("json")),
                Key("gen_ai.openai.request.response_format"),
            ],
            Text,
        ),
        row("gen_ai.retrieval.top_k", &[Where(names::OPERATION, "retrieval", &Key("gen_ai.request.top_k"))], Count),
        row("openai.response.system_fingerprint", &[Key("gen_ai.openai.response.system_fingerprint")], Text),
    ],
    // A tool that MCP calls, and an agent, of who does not name it elsewhere; and a tool with the id of its call.
    entity: &[
        Behind("tools/call "),
        // As MCP's own client for Python says it.
        Behind("MCP send tools/call "),
        Behind("invoke_agent "),
        Behind("execute_tool "),
        Behind("invoke_workflow "),
        Where(names::OPERATION, "invoke_agent", &Key("gen_ai.agent.id")),
        Where(names::OPERATION, "execute_tool", &Key("tool.name")),
    ],
    content: &[
        content(Side::System, &[Key(names::SYSTEM_INSTRUCTIONS)]),
        content(
            Side::In,
            &[
                Key(names::INPUT_MESSAGES),
                Key("gen_ai.prompt"),
                Indexed("gen_ai.prompt"),
                // OpenInference's, which others have for tools alone (Koog).
                Where(names::OPERATION, "execute_tool", &Key("input.value")),
                // Axiom's.
                Where(names::OPERATION, "execute_tool", &Key("gen_ai.tool.arguments")),
                // OpenLLMetry's of a task.
                Key("gen_ai.task.input"),
            ],
        ),
        content(
            Side::Out,
            &[
                Key(names::OUTPUT_MESSAGES),
                Key("gen_ai.completion"),
                Indexed("gen_ai.completion"),
                Where(names::OPERATION, "execute_tool", &Key("output.value")),
                Where(names::OPERATION, "execute_tool", &Key("gen_ai.tool.message")),
                Key("gen_ai.task.output"),
                // Sentry's.
                Parts(&[(Said::Text, "gen_ai.response.text"), (Said::ToolCalls, "gen_ai.response.tool_calls")]),
            ],
        ),
    ],
    kinds: &[
        kind(names::OPERATION, Test::Is("chat_streaming"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("completion"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("text_completions"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("interactions"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("interactions_streaming"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("llm_call"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("call_llm"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("llm_request"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("response"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("responses"), StepKind::Llm),
        // By the name of the client's method, as Langtrace has it.
        kind(names::OPERATION, Test::Ends(".responses.create"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("image"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("image_generation"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("audio_generation"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("transcription"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("embedding"), StepKind::Embedding),
        kind(names::OPERATION, Test::Is("embed"), StepKind::Embedding),
        kind(names::OPERATION, Test::Is("rerank"), StepKind::Rerank),
        kind(names::OPERATION, Test::Is("tool_call"), StepKind::Tool),
        kind(names::OPERATION, Test::Is("agent_call"), StepKind::Agent),
        kind(names::OPERATION, Test::Is("vector_db_retrieve"), StepKind::Retrieval),
        kind(names::OPERATION, Test::Is("execute_guardrail"), StepKind::Guardrail),
        kind(names::OPERATION, Test::Is("guardrail"), StepKind::Guardrail),
        kind(names::OPERATION, Test::Is("guardrail_check"), StepKind::Guardrail),
        // Whatever else an operation may be, it is no reason to guess from the fields below.
        kind(names::OPERATION, Test::Present, StepKind::Task),
        kind(names::MCP_METHOD, Test::Is("tools/call"), StepKind::Tool),
        kind(names::MCP_METHOD, Test::Present, StepKind::Task),
        kind(names::TOOL_NAME, Test::Present, StepKind::Tool),
        kind(names::WORKFLOW_NAME, Test::Label, StepKind::Workflow),
        kind(names::REQUEST_MODEL, Test::Present, StepKind::Llm),
        kind("tool.name", Test::With(&[names::TOOL_CALL_ID]), StepKind::Tool),
        kind(names::RETRIEVAL_QUERY, Test::Present, StepKind::Retrieval),
        kind(names::DATA_SOURCE_ID, Test::Present, StepKind::Retrieval),
        kind(names::AGENT_NAME, Test::Label, StepKind::Agent),
    ],
    ..PLAIN
};

/// The instrumentations of OpenTelemetry's own contrib repositories, which follow the standard's rule: input includes
/// cached tokens.
pub const OTEL_INSTRUMENTATION: Dialect = Dialect {
    name: "otel-instrumentation",
    detect: &[Detect::ScopePrefix("opentelemetry.instrumentation."), Detect::ScopePrefix("opentelemetry.util.genai")],
    // OpenLLMetry's have these scopes, too.
    facts: &[row(names::TOTAL_TOKENS, &[Key("llm.usage.total_tokens")], Count)],
    basis: ALL_INCLUSIVE,
    // That of LangChain over OpenAI's responses.
    unknown_is_error: true,
    ..PLAIN
};

/// That of Bedrock's client, which passes on what Bedrock reported: that counts cached tokens apart, against the standard's rule.
///
/// Source: `opentelemetry-instrumentation-genai-bedrock` 1.3b0, run against a scripted server.
pub const OTEL_BEDROCK: Dialect = Dialect {
    name: "otel-bedrock",
    variant_of: "otel-instrumentation",
    detect: &[Detect::ScopePrefix("opentelemetry.instrumentation.genai.bedrock")],
    basis: &[BasisRow { provider: "", basis: Basis::Exclusive }],
    cancelled_without_reason: &["chat", "text_completion"],
    ..OTEL_INSTRUMENTATION
};

/// That of Agno: an agent that an error ended gives it back as its answer, and its span has no status. That of LangChain
/// says of all answers of OpenAI's responses that they ended so.
///
/// Source: `opentelemetry-instrumentation-genai-agno` 1.3b0 with `agno` 3.1 and `opentelemetry-instrumentation-genai-langchain` 1.3b0 with
/// `langchain` 1.5, run against a scripted server.
pub const OTEL_AGNO: Dialect = Dialect {
    name: "otel-agno",
    variant_of: "otel-instrumentation",
    detect: &[Detect::ScopePrefix("opentelemetry.instrumentation.genai.agno")],
    outcomes: &[Outcome {
        from: Json(names::OUTPUT_MESSAGES, &["0", "finish_reason"]),
        word: "error",
        status: StepStatus::Error,
        message: &[Json(names::OUTPUT_MESSAGES, &["0", "parts", "0", "content"])],
    }],
    ..OTEL_INSTRUMENTATION
};

/// That of OpenAI's client, which tells by the reason alone of a stream that broke off or was given up.
///
/// Source: `opentelemetry-instrumentation-genai-openai` 1.3b0 with `openai` 3.57, run against a scripted server.
pub const OTEL_OPENAI: Dialect = Dialect {
    name: "otel-openai",
    variant_of: "otel-instrumentation",
    detect: &[Detect::ScopePrefix("opentelemetry.instrumentation.genai.openai")],
    outcomes: &[FINISHED_BY_ERROR],
    ..OTEL_INSTRUMENTATION
};

/// That of Google's client, whose streams have a reason for their end where they were read to it.
///
/// Source: `opentelemetry-instrumentation-google-genai` 1.3b0, run against a scripted server.
pub const OTEL_GOOGLE: Dialect = Dialect {
    name: "otel-google",
    variant_of: "otel-instrumentation",
    detect: &[Detect::ScopePrefix("opentelemetry.instrumentation.google_genai")],
    cancelled_without_reason: &["generate_content", "chat"],
    ..OTEL_INSTRUMENTATION
};

/// That of the OpenAI Agents SDK, of which the trace around the agents is one without a name, and which has a name of its own for who is
/// at work elsewhere. OpenLLMetry's has this scope, too.
///
/// Source: `opentelemetry-instrumentation-openai-agents-v2` 0.1.0 with `openai-agents` 0.24, run against a scripted server.
pub const OTEL_OPENAI_AGENTS: Dialect = Dialect {
    name: "otel-openai-agents",
    variant_of: "otel-instrumentation",
    detect: &[Detect::Scope("opentelemetry.instrumentation.openai_agents")],
    facts: &[row(names::AGENT_NAME, &[], Agent), row(names::TOTAL_TOKENS, &[Key("llm.usage.total_tokens")], Count)],
    entity: &[Name],
    kinds: &[kind(names::OPERATION, Test::IsWithout("invoke_agent", names::AGENT_NAME), StepKind::Workflow)],
    ..OTEL_INSTRUMENTATION
};

/// OpenLLMetry's calls of the same that are no responses of OpenAI's, but chat completions or another client's: it has nothing of what
/// was answered, whatever became of them.
///
/// Source: `opentelemetry-instrumentation-openai-agents` 0.47.5 and 0.62.4, run against a scripted server; 0.49 to 0.61 from the code. The
/// operation of responses is one of its own before 0.61, and there is no model before the answer since.
pub const TRACELOOP_OPENAI_GENERATION: Dialect = Dialect {
    name: "traceloop-openai-generation",
    detect: &[
        Detect::Within {
            scope: "opentelemetry.instrumentation.openai_agents",
            name: "openai.response",
            key: "llm.request.type",
            part: "chat",
        },
        Detect::Within {
            scope: "opentelemetry.instrumentation.openai_agents",
            name: "openai.response",
            key: names::REQUEST_MODEL,
            part: "",
        },
    ],
    ..OTEL_OPENAI_AGENTS
};

/// OpenLLMetry's calls of the same, of which a stream that the program stopped reading says nothing, and that all is well.
///
/// Source: `opentelemetry-instrumentation-openai-agents` 0.62.4, run against a scripted server.
pub const TRACELOOP_OPENAI_AGENTS: Dialect = Dialect {
    name: "traceloop-openai-agents",
    detect: &[Detect::Named("opentelemetry.instrumentation.openai_agents", "openai.response")],
    cancelled_without_response: &["chat", "response"],
    is_silent_without_model: true,
    ..OTEL_OPENAI_AGENTS
};

/// What the clients of Anthropic trace of themselves, retries and the reading of a stream included: input includes cached
/// tokens.
///
/// Source: `anthropic` 2.14 for Python, `_tracing.py`. It counts tokens and makes sessions under the same names, and neither
/// is a call of a model.
pub const ANTHROPIC_CLIENT: Dialect = Dialect {
    name: "anthropic-client",
    detect: &[Detect::ScopePrefix("com.anthropic.sdk.")],
    facts: &[
        row(names::FINISH_REASONS, &[Key("anthropic.message.stop_reason")], Words),
        row(names::CACHE_WRITE_1H_TOKENS, &[Key("anthropic.usage.cache_creation.ephemeral_1h_input_tokens")], Count),
    ],
    kinds: &[
        kind(names::OPERATION, Test::Is("chat"), StepKind::Llm),
        // Tools that it runs itself, with `toolRunner`, which is an agent in all but the name.
        kind(names::OPERATION, Test::Is("execute_tool"), StepKind::Tool),
        kind(names::OPERATION, Test::Is("invoke_agent"), StepKind::Agent),
        // Beside Langtrace it lacks what was asked.
        kind(names::RESPONSE_ID, Test::Present, StepKind::Llm),
        kind(SPAN_NAME, Test::Starts("anthropic."), StepKind::Task),
    ],
    content: &[content(Side::Out, &[Key("anthropic.tool_result.content")])],
    basis: ALL_INCLUSIVE,
    cancelled_without_reason: &["chat"],
    ..PLAIN
};

/// Sentry's, of the clients of providers in JavaScript: a stream that says nothing of an answer broke off or was given up.
///
/// Source: `@sentry/node` 10.78 with the clients of OpenAI and Anthropic, run against a scripted server. Of Anthropic it counts as that
/// does.
pub const SENTRY: Dialect = Dialect {
    name: "sentry",
    detect: &[Detect::ScopePrefix("@sentry/")],
    cancelled_without_response: &["chat"],
    is_silent_without_model: true,
    basis: AS_REPORTED,
    ..PLAIN
};

/// What Mistral's client traces of itself. A request that has failed is told by silence: one that was answered has at least a status.
///
/// Source: `mistralai` 1.12 (operations by the name of the span alone) and 3.7 for Python, `extra/observability/otel.py`, run
/// against a scripted server.
pub const MISTRAL_CLIENT: Dialect = Dialect {
    name: "mistral-client",
    detect: &[Detect::Scope("mistralai_sdk_tracer")],
    facts: &[
        row(names::PROVIDER, &[Fixed("mistral_ai")], Provider),
        row(names::TOTAL_TOKENS, &[Key("mistral_ai.request.total_tokens")], Count),
    ],
    kinds: &[kind(SPAN_NAME, Test::Starts("embeddings_"), StepKind::Embedding)],
    basis: ALL_INCLUSIVE,
    failed_without_response: &["chat", "invoke_agent", "text_completion", "embeddings"],
    ..PLAIN
};

/// A stream of Mistral's client before it told of operations: it has the request and no word of what became of it.
pub const MISTRAL_STREAM: Dialect = Dialect {
    name: "mistral-stream",
    variant_of: "mistral-client",
    detect: &[
        Detect::Named("mistralai_sdk_tracer", "stream_chat"),
        Detect::Named("mistralai_sdk_tracer", "stream_agents"),
        Detect::Named("mistralai_sdk_tracer", "stream_fim"),
    ],
    failed_without_response: &[],
    ..MISTRAL_CLIENT
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
        Outcome { from: Key("gen_ai.tool.call.outcome"), word: "error", status: StepStatus::Error, message: &[] },
        // The tool did not run: a hook of the program refused or skipped the call.
        Outcome { from: Key("gen_ai.tool.call.outcome"), word: "denied", status: StepStatus::Cancelled, message: &[] },
        Outcome { from: Key("gen_ai.tool.call.outcome"), word: "skipped", status: StepStatus::Cancelled, message: &[] },
    ],
    basis: ALL_INCLUSIVE,
    failed_without_response: &["chat", "generate_content", "embeddings"],
    ..PLAIN
};
